#include "inbox.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

bool inbox_open(struct inbox *inbox)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return false;
    inbox->read_fd = ends[0];
    inbox->write_fd = ends[1];
    int bytes = INBOX_BYTES;
    if (setsockopt(inbox->write_fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
        setsockopt(inbox->write_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes); /* as far as permitted */
    return true;
}

void inbox_close(struct inbox *inbox)
{
    close(inbox->read_fd);
    close(inbox->write_fd);
}

bool inbox_put(const struct inbox *inbox, uint32_t peer_id, const uint8_t *packet, size_t length)
{
    uint8_t id[INBOX_ID];
    put_u32(id, peer_id);
    struct iovec parts[] = {{id, sizeof id}, {(uint8_t *)packet, length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return sendmsg(inbox->write_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

size_t inbox_take(const struct inbox *inbox, uint32_t *peer_id, uint8_t packet[static LINK_PACKET_MAX])
{
    uint8_t id[INBOX_ID];
    struct iovec parts[] = {{id, sizeof id}, {packet, LINK_PACKET_MAX}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t length = recvmsg(inbox->read_fd, &message, MSG_DONTWAIT);
    if (length <= INBOX_ID)
        return 0;
    *peer_id = get_u32(id);
    return (size_t)length - INBOX_ID;
}
