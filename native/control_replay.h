/* Which control packets of one sender have been here before (openvpn-wire.md section 6.5). cvpnd/wire/wrap/replay.py is the
 * specification. Asked only about authentic packets; the time rule of 15 s is a part of it, unlike on the data channel. */
#ifndef CVPND_CONTROL_REPLAY_H
#define CVPND_CONTROL_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

enum { CONTROL_REPLAY_IDS = 64, CONTROL_REPLAY_S = 15 };

struct control_replay {
    bool begun;
    uint32_t time;                    /* of the sender's run */
    uint32_t highest;                 /* 0 = none yet; ids start at 1 */
    uint32_t ids[CONTROL_REPLAY_IDS]; /* by id modulo their number; 0 = none */
    double arrived[CONTROL_REPLAY_IDS];
};

/* True, and remembered, when the packet is new. */
bool control_replay_accept(struct control_replay *window, uint32_t id, uint32_t time, double now);

#endif
