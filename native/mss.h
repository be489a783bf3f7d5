/* Lowering the MSS option of TCP SYN segments, so that what comes back fits the tunnel (openvpn-wire.md section 12). */
#ifndef CVPND_MSS_H
#define CVPND_MSS_H

#include <stddef.h>
#include <stdint.h>

/* `packet` is one well-formed IP packet (see inner_parse). A bound of 0 leaves that family alone. */
void mss_clamp(uint8_t *packet, size_t length, uint16_t bound_v4, uint16_t bound_v6);

#endif
