#include "link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "endpoint.h"
#include "peer.h"

enum {
    SOCKET_BUFFER = 4 << 20,
    /* Room for the packet info of either family. */
    CONTROL_SIZE = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)),
};

struct link_receiver {
    struct mmsghdr messages[BATCH_PACKETS];
    struct iovec vectors[BATCH_PACKETS];
    struct sockaddr_storage sources[BATCH_PACKETS];
    alignas(struct cmsghdr) uint8_t control[BATCH_PACKETS][CONTROL_SIZE];
    uint8_t bytes[BATCH_PACKETS][LINK_PACKET_MAX];
};

struct link_receiver *link_receiver_new(void)
{
    struct link_receiver *receiver = calloc(1, sizeof *receiver);
    if (receiver == NULL)
        return NULL;
    for (unsigned i = 0; i < BATCH_PACKETS; i++) {
        receiver->vectors[i] = (struct iovec){receiver->bytes[i], LINK_PACKET_MAX};
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

/* The gateway's own address a datagram was sent to; unset when the socket does not tell. */
static struct ip_address local_address(struct msghdr *header)
{
    struct ip_address local = {{0}};
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            return ip_from_v4((const uint8_t *)&info.ipi_addr);
        }
        if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            local = ip_from_v6(info.ipi6_addr.s6_addr);
        }
    }
    return local;
}

enum io_result link_receive(struct link_receiver *receiver, int fd, struct batch *batch, struct counters *counters)
{
    batch->count = 0;
    for (unsigned i = 0; i < BATCH_PACKETS; i++) {
        struct msghdr *header = &receiver->messages[i].msg_hdr;
        header->msg_namelen = sizeof receiver->sources[i];
        header->msg_controllen = CONTROL_SIZE;
    }
    int received = recvmmsg(fd, receiver->messages, BATCH_PACKETS, MSG_DONTWAIT, NULL);
    if (received < 0)
        return errno == EBADF || errno == ENOTSOCK || errno == EINVAL ? IO_BROKEN : IO_DONE;
    count_total(counters, TOTAL_RECEIVE_CALLS, 1);
    count_total(counters, TOTAL_LINK_PACKETS_IN, (uint64_t)received);
    for (int i = 0; i < received; i++) {
        struct msghdr *header = &receiver->messages[i].msg_hdr;
        struct packet *packet = &batch->packets[batch->count];
        if (header->msg_flags & MSG_TRUNC || !socket_address_from(&packet->source, &receiver->sources[i])) {
            count_drop(counters, DROP_TRUNCATED);
            continue;
        }
        packet->bytes = receiver->bytes[i];
        packet->length = receiver->messages[i].msg_len;
        packet->local = local_address(header);
        batch->count++;
    }
    return IO_DONE;
}

static void send_all(int fd, struct mmsghdr *messages, unsigned count, struct counters *counters)
{
    unsigned at = 0;
    while (at < count) {
        int sent = sendmmsg(fd, messages + at, count - at, MSG_DONTWAIT);
        count_total(counters, TOTAL_SEND_CALLS, 1);
        if (sent > 0) {
            count_total(counters, TOTAL_LINK_PACKETS_OUT, (uint64_t)sent);
            at += (unsigned)sent;
            continue;
        }
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) {
            /* This datagram's own fault (too long, unreachable): the others may still go. */
            count_drop(counters, DROP_LINK_FULL);
            at++;
            continue;
        }
        counter_add(&counters->drops[DROP_LINK_FULL], count - at);
        return;
    }
}

void link_send(const struct batch *batch, unsigned worker, struct counters *counters)
{
    struct mmsghdr messages[BATCH_PACKETS];
    struct iovec vectors[BATCH_PACKETS];
    bool done[BATCH_PACKETS] = {false};
    /* One round for each listener in the batch: nearly always one. */
    for (unsigned first = 0; first < batch->count; first++) {
        if (done[first] || batch->packets[first].remote == NULL)
            continue;
        const struct listener *listener = batch->packets[first].remote->listener;
        unsigned count = 0;
        for (unsigned i = first; i < batch->count; i++) {
            const struct packet *packet = &batch->packets[i];
            const struct remote *remote = packet->remote;
            if (remote == NULL || remote->listener != listener)
                continue;
            done[i] = true;
            vectors[count] = (struct iovec){packet->bytes, packet->length};
            messages[count].msg_hdr = (struct msghdr){
                .msg_name = (void *)&remote->sockaddr,
                .msg_namelen = remote->sockaddr_length,
                .msg_iov = &vectors[count],
                .msg_iovlen = 1,
                .msg_control = remote->control_length > 0 ? (void *)remote->control : NULL,
                .msg_controllen = remote->control_length,
            };
            count++;
        }
        send_all(listener->udp_fds[worker], messages, count, counters);
    }
}

void link_enlarge_buffers(int fd)
{
    int size = SOCKET_BUFFER;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}
