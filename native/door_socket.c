#include "door_socket.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>

enum { CONTROL_SIZE = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)) };

struct door_socket {
    unsigned reply_count;
    struct datagram datagrams[DOOR_BATCH];
    struct mmsghdr messages[DOOR_BATCH];
    struct iovec vectors[DOOR_BATCH];
    struct sockaddr_storage sources[DOOR_BATCH];
    struct mmsghdr replies[DOOR_BATCH];
    struct iovec reply_vectors[DOOR_BATCH];
    alignas(struct cmsghdr) uint8_t control[DOOR_BATCH][CONTROL_SIZE];
    uint8_t bytes[DOOR_BATCH][CONTROL_DATAGRAM_MAX];
};

struct door_socket *door_socket_new(void)
{
    struct door_socket *socket = calloc(1, sizeof *socket);
    if (socket == NULL)
        return NULL;
    for (unsigned i = 0; i < DOOR_BATCH; i++) {
        socket->vectors[i] = (struct iovec){socket->bytes[i], CONTROL_DATAGRAM_MAX};
        socket->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &socket->sources[i],
            .msg_iov = &socket->vectors[i],
            .msg_iovlen = 1,
            .msg_control = socket->control[i],
        };
    }
    return socket;
}

void door_socket_free(struct door_socket *socket) { free(socket); }

/* Reads the address a datagram was sent to, and turns the message into the one that makes a reply leave from there. */
static struct ip_address turn_round(struct msghdr *header)
{
    struct ip_address local = {{0}};
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            local = ip_from_v4((const uint8_t *)&info.ipi_addr);
            info.ipi_spec_dst = info.ipi_addr;
            info.ipi_ifindex = 0; /* the routing table says where to */
            memcpy(CMSG_DATA(control), &info, sizeof info);
        } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            local = ip_from_v6(info.ipi6_addr.s6_addr);
            if (!ip_is_link_local(&local))
                info.ipi6_ifindex = 0;
            memcpy(CMSG_DATA(control), &info, sizeof info);
        }
    }
    return local;
}

int door_receive(struct door_socket *socket, int fd)
{
    socket->reply_count = 0;
    for (unsigned i = 0; i < DOOR_BATCH; i++) {
        socket->messages[i].msg_hdr.msg_namelen = sizeof socket->sources[i];
        socket->messages[i].msg_hdr.msg_controllen = CONTROL_SIZE;
    }
    int received = recvmmsg(fd, socket->messages, DOOR_BATCH, MSG_DONTWAIT, NULL);
    if (received < 0)
        return errno == EBADF || errno == ENOTSOCK || errno == EINVAL ? -1 : 0;
    for (int i = 0; i < received; i++) {
        struct msghdr *header = &socket->messages[i].msg_hdr;
        struct datagram *datagram = &socket->datagrams[i];
        *datagram = (struct datagram){.bytes = socket->bytes[i], .length = socket->messages[i].msg_len};
        datagram->truncated =
            (header->msg_flags & MSG_TRUNC) != 0 || !socket_address_from(&datagram->source, &socket->sources[i]);
        datagram->local = turn_round(header);
    }
    return received;
}

const struct datagram *door_datagram(const struct door_socket *socket, unsigned index)
{
    return &socket->datagrams[index];
}

void door_reply(struct door_socket *socket, unsigned index, const uint8_t *bytes, size_t length)
{
    unsigned number = socket->reply_count++;
    socket->reply_vectors[number] = (struct iovec){(void *)bytes, length};
    socket->replies[number].msg_hdr = socket->messages[index].msg_hdr;
    socket->replies[number].msg_hdr.msg_iov = &socket->reply_vectors[number];
    socket->replies[number].msg_hdr.msg_flags = 0;
}

unsigned door_send(struct door_socket *socket, int fd)
{
    unsigned at = 0, taken = 0;
    while (at < socket->reply_count) {
        int sent = sendmmsg(fd, socket->replies + at, socket->reply_count - at, MSG_DONTWAIT);
        if (sent > 0) {
            taken += (unsigned)sent;
            at += (unsigned)sent;
        } else if (sent < 0 && errno == EINTR) {
            continue;
        } else if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            break;
        } else {
            at++; /* this one's own fault (unreachable): the others may still go */
        }
    }
    socket->reply_count = 0;
    return taken;
}
