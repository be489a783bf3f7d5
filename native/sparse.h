/* Which packets of a batch go first. A super-packet is up to 45 datagrams in one go, which take the client some milliseconds
 * and half of the buffer that its socket has by default. What came behind it from somebody else (an answer to a ping, a
 * voice) waited for them all, and was lost with them where they did not fit. So packets that came alone go before
 * super-packets, as a fair queue would have it, and never before anything of their own flow. */
#ifndef CVPND_SPARSE_H
#define CVPND_SPARSE_H

#include "batch.h"

/* To be called with inner packets before they are sealed, which numbers them. */
void sparse_first(struct batch *batch);

#endif
