#include "link.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "endpoint.h"
#include "peer.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    SOCKET_BUFFER = 4 << 20,
    MESSAGES = 64,
    MESSAGE_MAX = 64 << 10,
    MESSAGE_STRIDE = MESSAGE_MAX + 17 * 64, /* else all messages would begin in the same few cache sets */
    /* Room for the packet info of either family, and the size of segments. */
    RECEIVE_CONTROL =
        CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int)),
    SEND_CONTROL = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t)),
    RUN_SEGMENTS = 64,     /* what every kernel with UDP_SEGMENT takes */
    RUN_BYTES = 65507,     /* of UDP payload, over IPv4 */
    EVERY_PATH_FITS = 512, /* when this is refused as a segment, it is not for the path's MTU */
    TRIED_AGAIN = 100000,  /* packets that go alone after a refusal: one call in vain among them costs nothing */
};

struct link_receiver {
    struct mmsghdr messages[MESSAGES];
    struct iovec vectors[MESSAGES];
    struct sockaddr_storage sources[MESSAGES];
    alignas(struct cmsghdr) uint8_t control[MESSAGES][RECEIVE_CONTROL];

    /* What is to be taken: the rest of messages[next - 1], then messages[next..received). */
    unsigned received, next;
    struct packet message; /* address and all; its bytes are what is left */
    uint32_t segment;

    uint8_t bytes[MESSAGES * MESSAGE_STRIDE];
};

struct link_receiver *link_receiver_new(void)
{
    struct link_receiver *receiver = calloc(1, sizeof *receiver); /* pages that are never used are never there */
    if (receiver == NULL)
        return NULL;
    for (unsigned i = 0; i < MESSAGES; i++) {
        receiver->vectors[i] = (struct iovec){receiver->bytes + i * MESSAGE_STRIDE, MESSAGE_MAX};
        receiver->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &receiver->sources[i],
            .msg_iov = &receiver->vectors[i],
            .msg_iovlen = 1,
            .msg_control = receiver->control[i],
        };
    }
    return receiver;
}

void link_receiver_free(struct link_receiver *receiver) { free(receiver); }

/* -- receiving ---------------------------------------------------------------------------------------------------- */

/* Sets the gateway's own address the datagram was sent to, which stays unset when the socket does not tell, and the
 * size of the segments it consists of. */
static void read_control(struct msghdr *header, struct ip_address *local, uint32_t *segment)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            *local = ip_from_v4((const uint8_t *)&info.ipi_addr);
        } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            if (ip_is_unset(local)) /* a dual-stack socket may tell an IPv4 address in both forms */
                *local = ip_from_v6(info.ipi6_addr.s6_addr);
        } else if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(control), sizeof size);
            if (size > 0)
                *segment = (uint32_t)size;
        }
    }
}

enum io_result link_receive(struct link_receiver *receiver, int fd, struct counters *counters)
{
    receiver->received = receiver->next = 0;
    receiver->message.length = 0;
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct msghdr *header = &receiver->messages[i].msg_hdr;
        header->msg_namelen = sizeof receiver->sources[i];
        header->msg_controllen = RECEIVE_CONTROL;
    }
    int received = recvmmsg(fd, receiver->messages, MESSAGES, MSG_DONTWAIT, NULL);
    if (received < 0)
        return errno == EBADF || errno == ENOTSOCK || errno == EINVAL ? IO_BROKEN : IO_DONE;
    count_total(counters, TOTAL_RECEIVE_CALLS, 1);
    count_total(counters, TOTAL_RECEIVE_MESSAGES, (uint64_t)received);
    receiver->received = (unsigned)received;
    return IO_DONE;
}

/* Goes on to the next message that is complete. An empty datagram is one packet, of no bytes. */
static bool next_message(struct link_receiver *receiver, struct counters *counters)
{
    while (receiver->next < receiver->received) {
        unsigned i = receiver->next++;
        struct msghdr *header = &receiver->messages[i].msg_hdr;
        struct packet *message = &receiver->message;
        *message = (struct packet){.bytes = receiver->vectors[i].iov_base, .length = receiver->messages[i].msg_len};
        receiver->segment = message->length;
        if (!(header->msg_flags & MSG_TRUNC) && socket_address_from(&message->source, &receiver->sources[i])) {
            read_control(header, &message->local, &receiver->segment);
            if (message->length > 0)
                return true;
        }
        count_total(counters, TOTAL_LINK_PACKETS_IN, 1);
        count_drop(counters, DROP_TRUNCATED);
    }
    return false;
}

bool link_take(struct link_receiver *receiver, struct batch *batch, struct counters *counters)
{
    struct packet *message = &receiver->message;
    uint64_t taken = 0;
    batch->count = 0;
    while (batch->count < BATCH_PACKETS && (message->length > 0 || next_message(receiver, counters))) {
        struct packet *packet = &batch->packets[batch->count];
        *packet = *message;
        if (packet->length > receiver->segment)
            packet->length = receiver->segment;
        message->bytes += packet->length;
        message->length -= packet->length;
        taken++;
        if (packet->length > LINK_PACKET_MAX)
            count_drop(counters, DROP_TRUNCATED);
        else
            batch->count++;
    }
    count_total(counters, TOTAL_LINK_PACKETS_IN, taken);
    return taken > 0;
}

/* -- sending ------------------------------------------------------------------------------------------------------ */

/* What sendmmsg gets: each message is one packet, or a run of segments for one remote. */
struct outgoing {
    unsigned count, vectors_used;
    struct mmsghdr messages[BATCH_PACKETS];
    struct remote *remotes[BATCH_PACKETS];
    struct iovec vectors[BATCH_PACKETS];
    alignas(struct cmsghdr) uint8_t control[BATCH_PACKETS][SEND_CONTROL];
};

static void add_message(struct outgoing *outgoing, struct remote *remote, struct iovec *vectors, size_t count)
{
    outgoing->remotes[outgoing->count] = remote;
    outgoing->messages[outgoing->count++].msg_hdr = (struct msghdr){
        .msg_name = &remote->sockaddr,
        .msg_namelen = remote->sockaddr_length,
        .msg_iov = vectors,
        .msg_iovlen = count,
        .msg_control = remote->control_length > 0 ? remote->control : NULL,
        .msg_controllen = remote->control_length,
    };
}

/* The packet's own control message goes before the size of segments. */
static void tell_segment_size(struct outgoing *outgoing, unsigned index)
{
    struct msghdr *header = &outgoing->messages[index].msg_hdr;
    const struct remote *remote = outgoing->remotes[index];
    uint8_t *control = outgoing->control[index];
    uint16_t size = (uint16_t)header->msg_iov[0].iov_len;
    memset(control, 0, SEND_CONTROL);
    memcpy(control, remote->control, remote->control_length);
    struct cmsghdr *segment = (struct cmsghdr *)(void *)(control + remote->control_length);
    segment->cmsg_level = IPPROTO_UDP;
    segment->cmsg_type = UDP_SEGMENT;
    segment->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(segment), &size, sizeof size);
    header->msg_control = control;
    header->msg_controllen = remote->control_length + CMSG_SPACE(sizeof size);
}

/* Segments are of equal length, of which the last may fall short. */
struct segment_run {
    struct remote *remote;
    size_t bytes;
    bool open;
};

/* What was refused once may pass later: paths and devices change while a peer stays for months. Workers that count at
 * the same time may lose one another's. */
static bool is_withheld(struct remote *remote, size_t segment)
{
    uint32_t limit = atomic_load_explicit(&remote->segment_limit, memory_order_relaxed);
    if (limit == 0 || segment < limit)
        return false;
    uint32_t withheld = atomic_load_explicit(&remote->segments_withheld, memory_order_relaxed);
    if (withheld < TRIED_AGAIN) {
        atomic_store_explicit(&remote->segments_withheld, withheld + 1, memory_order_relaxed);
        return true;
    }
    atomic_store_explicit(&remote->segment_limit, 0, memory_order_relaxed);
    return false;
}

static bool may_follow(const struct outgoing *outgoing, const struct segment_run *run, const struct packet *packet)
{
    if (!run->open || run->remote != packet->remote)
        return false;
    const struct msghdr *header = &outgoing->messages[outgoing->count - 1].msg_hdr;
    return packet->length <= header->msg_iov[0].iov_len && header->msg_iovlen < RUN_SEGMENTS &&
           run->bytes + packet->length <= RUN_BYTES && !is_withheld(run->remote, header->msg_iov[0].iov_len);
}

/* Sockets are in OMIT for IPv4: no DF, so that routers may cut, and the kernel cuts nothing to what ICMP errors say. Anybody
 * can send one who knows the client's address, and it would hold for ten minutes. They are in PROBE for IPv6, which
 * passes over what the kernel has been told, but for packets that it is to cut. */
static void set_discovery(int fd, int level, int option, int how) { setsockopt(fd, level, option, &how, sizeof how); }

/* What a socket is told for a while. Routers of IPv6 cut nothing: what is not known to pass whole is cut by the kernel,
 * to what it has been told. */
static const struct discovery {
    int level, option, how, usual;
} DISCOVERY[] = {
    [PASSAGE_UNPROVEN] = {IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_WANT, IPV6_PMTUDISC_PROBE},
    [PASSAGE_WHOLE] = {IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IP_PMTUDISC_OMIT},
};

static enum passage passage_of(const struct packet *packet)
{
    bool routers_cut = ip_is_v4(&packet->remote->address.ip);
    return packet->passage == PASSAGE_UNPROVEN && routers_cut ? PASSAGE_USUAL : packet->passage;
}

/* The packets of the batch that go as the first one does, as messages. */
static void collect(struct outgoing *outgoing, const struct batch *batch, unsigned first, bool *done)
{
    const struct listener *listener = batch->packets[first].remote->listener;
    enum passage passage = passage_of(&batch->packets[first]);
    struct segment_run run = {.open = false};
    outgoing->count = outgoing->vectors_used = 0;
    for (unsigned i = first; i < batch->count; i++) {
        const struct packet *packet = &batch->packets[i];
        if (packet->remote == NULL || packet->remote->listener != listener || passage_of(packet) != passage)
            continue;
        done[i] = true;
        struct iovec *vector = &outgoing->vectors[outgoing->vectors_used++];
        *vector = (struct iovec){packet->bytes, packet->length};
        if (may_follow(outgoing, &run, packet)) {
            struct msghdr *header = &outgoing->messages[outgoing->count - 1].msg_hdr;
            header->msg_iovlen++;
            run.bytes += packet->length;
            run.open = packet->length == header->msg_iov[0].iov_len;
        } else {
            add_message(outgoing, packet->remote, vector, 1);
            run = (struct segment_run){packet->remote, packet->length, listener->segmented};
        }
    }
    for (unsigned i = 0; i < outgoing->count; i++)
        if (outgoing->messages[i].msg_hdr.msg_iovlen > 1)
            tell_segment_size(outgoing, i);
}

static unsigned packets_in(const struct mmsghdr *messages, unsigned count)
{
    unsigned packets = 0;
    for (unsigned i = 0; i < count; i++)
        packets += (unsigned)messages[i].msg_hdr.msg_iovlen;
    return packets;
}

/* Sends messages until one is refused for its own fault, or the socket takes no more; how many are dealt with. */
static unsigned send_some(int fd, struct mmsghdr *messages, unsigned count, struct counters *counters)
{
    unsigned at = 0;
    while (at < count) {
        int sent = sendmmsg(fd, messages + at, count - at, MSG_DONTWAIT);
        count_total(counters, TOTAL_SEND_CALLS, 1);
        if (sent > 0) {
            count_total(counters, TOTAL_SEND_MESSAGES, (uint64_t)sent);
            count_total(counters, TOTAL_LINK_PACKETS_OUT, packets_in(messages + at, (unsigned)sent));
            at += (unsigned)sent;
        } else if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            counter_add(&counters->drops[DROP_LINK_FULL], packets_in(messages + at, count - at));
            return count;
        } else if (sent == 0 || errno != EINTR) {
            return at;
        }
    }
    return count;
}

/* Sends a refused run packet by packet. */
static void send_unsegmented(int fd, struct remote *remote, struct iovec *vectors, size_t count,
                             struct counters *counters)
{
    struct outgoing outgoing; /* only its first messages are touched */
    outgoing.count = 0;
    for (size_t i = 0; i < count; i++)
        add_message(&outgoing, remote, &vectors[i], 1);
    for (unsigned at = 0; at < outgoing.count; at++) {
        at += send_some(fd, outgoing.messages + at, outgoing.count - at, counters);
        if (at < outgoing.count)
            count_drop(counters, DROP_LINK_FULL);
    }
}

/* A run was refused: for the length of its segments, or because the device on the way to this remote cannot do it at
 * all. Others may be reached by another one. */
static void learn(struct remote *remote, size_t segment, int error)
{
    uint32_t limit = error == EIO || segment <= EVERY_PATH_FITS ? 1 : (uint32_t)segment;
    atomic_store_explicit(&remote->segment_limit, limit, memory_order_relaxed);
    atomic_store_explicit(&remote->segments_withheld, 0, memory_order_relaxed);
}

static void send_all(struct outgoing *outgoing, int fd, enum passage passage, struct counters *counters)
{
    for (unsigned at = 0; at < outgoing->count; at++) {
        at += send_some(fd, outgoing->messages + at, outgoing->count - at, counters);
        if (at == outgoing->count)
            return;
        int error = errno;
        struct msghdr *refused = &outgoing->messages[at].msg_hdr;
        if (refused->msg_iovlen > 1 && (error == EINVAL || error == EIO || error == EMSGSIZE)) {
            learn(outgoing->remotes[at], refused->msg_iov[0].iov_len, error);
            send_unsegmented(fd, outgoing->remotes[at], refused->msg_iov, refused->msg_iovlen, counters);
        } else if (passage != PASSAGE_WHOLE) { /* what is refused at once does not pass either */
            /* Its own fault (too long, unreachable): the others may still go. */
            counter_add(&counters->drops[DROP_LINK_FULL], refused->msg_iovlen);
        }
    }
}

void link_send(const struct batch *batch, unsigned worker, struct counters *counters)
{
    struct outgoing outgoing;
    bool done[BATCH_PACKETS] = {false};
    /* One round for each listener in the batch, and for each way of sending: nearly always one. */
    for (unsigned first = 0; first < batch->count; first++) {
        const struct packet *packet = &batch->packets[first];
        if (done[first] || packet->remote == NULL)
            continue;
        int fd = packet->remote->listener->udp_fds[worker];
        enum passage passage = passage_of(packet);
        const struct discovery *unusual = passage == PASSAGE_USUAL ? NULL : &DISCOVERY[passage];
        collect(&outgoing, batch, first, done);
        if (unusual != NULL)
            set_discovery(fd, unusual->level, unusual->option, unusual->how);
        send_all(&outgoing, fd, passage, counters);
        if (unusual != NULL)
            set_discovery(fd, unusual->level, unusual->option, unusual->usual);
    }
}

void link_prepare(int fd, bool coalesce)
{
    int on = coalesce, size = SOCKET_BUFFER;
    set_discovery(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT);
    set_discovery(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}
