/* What a TCP segment says that acknowledges and does nothing else, and whether a later one of its flow says it too
 * (RFC 3449 5.2.3 calls leaving out such ones ACK filtering). Pure: headers in, verdicts out. */
#ifndef CVPND_ACKNOWLEDGEMENT_H
#define CVPND_ACKNOWLEDGEMENT_H

#include <stdbool.h>
#include <stdint.h>

struct acknowledgement {
    const uint8_t *tcp; /* the header */
    uint16_t size;      /* of it */
    uint16_t sack;      /* offset of its selective acknowledgements, which end it; 0 = none */
    bool stamped;
};

/* Of a whole TCP header; false when it has other options than a timestamp and selective acknowledgements. */
bool acknowledgement_read(struct acknowledgement *read, const uint8_t *tcp, uint32_t size);

/* Whether nothing is lost with the one before, when this one goes in its place. `repeats`: how many of its flow had the
 * number of the one before, before it. */
bool acknowledgement_says_all(const struct acknowledgement *now, const struct acknowledgement *before,
                              unsigned repeats);

#endif
