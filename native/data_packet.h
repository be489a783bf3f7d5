/* One data packet, in each of the formats on the wire (openvpn-wire.md 11.1 to 11.3):
 *
 *   P_DATA_V2   u32 opcode, key id, peer id | u32 packet id | tag | text     the tag covers all before it
 *   P_DATA_V1   u8 opcode, key id | u32 packet id | tag | text               the tag covers the packet id
 *   epoch       u32 opcode, key id, peer id | u64 epoch and counter | text | tag
 *   CBC         either of the first two headers | HMAC | IV | ( u32 packet id | text | padding )   see cbc.h
 *
 * The key slot says which it is, and the opcode whether there is a peer id. */
#ifndef CVPND_DATA_PACKET_H
#define CVPND_DATA_PACKET_H

#include "batch.h"
#include "peer.h"

/* Opens in place with a key of the peer's, whose worker this is, and holds the id against the replay window. If it
 * passes, the packet is its text; what fails leaves no trace but in the bytes. `packet` has at least one byte. */
enum drop_reason data_packet_open(struct key_slot *slot, const struct key_limits *limits, struct packet *packet);

/* A limit of the key is near in the peer's direction. To be asked after a packet that passed. */
bool data_packet_open_limit_near(const struct key_slot *slot, const struct key_limits *limits);

/* Seals in place as worker `worker`, using SEAL_HEADROOM and SEAL_TAILROOM. The text is untouched when it says
 * DROP_KEY_EXHAUSTED, so another key may still seal it. */
enum drop_reason data_packet_seal(struct key_slot *slot, unsigned worker, const struct key_limits *limits,
                                  const struct peer *peer, struct packet *packet);

#endif
