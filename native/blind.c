#include "blind.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <openssl/crypto.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEARD_AT_ONCE = 1024, SENT_AGAIN = 3 };

static int open_one(int family)
{
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int on = 1, v4 = IP_PMTUDISC_PROBE, v6 = IPV6_PMTUDISC_PROBE;
    struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0}; /* of what comes; errors pass */
    struct sock_fprog program = {1, &nothing};
    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &v4, sizeof v4);
    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on);
    if (family == AF_INET6) { /* which may carry IPv4 too */
        setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6, sizeof v6);
        setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
    }
    return fd;
}

void blind_open(struct blind *blind, unsigned worker, struct id_table *peers)
{
    *blind = (struct blind){worker, peers, open_one(AF_INET), open_one(AF_INET6)};
}

void blind_close(struct blind *blind)
{
    if (blind->fd_v4 >= 0)
        close(blind->fd_v4);
    if (blind->fd_v6 >= 0)
        close(blind->fd_v6);
}

/* The longest packet that passes, if the message says so; 0 if it says something else. */
static uint32_t mtu_in(struct msghdr *header, bool *local)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        bool error = (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_RECVERR) ||
                     (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_RECVERR);
        if (!error || control->cmsg_len < CMSG_LEN(sizeof(struct sock_extended_err)))
            continue;
        struct sock_extended_err said;
        memcpy(&said, CMSG_DATA(control), sizeof said);
        *local = said.ee_origin == SO_EE_ORIGIN_LOCAL;
        if (said.ee_errno == EMSGSIZE)
            return said.ee_info > 0 ? said.ee_info : 1; /* 0 from routers older than RFC 1191 */
    }
    return 0;
}

/* The peer whose packet is quoted. */
static struct peer *quoted_peer(const struct blind *blind, const uint8_t *quote, size_t length)
{
    struct peer *peer = length < BLIND_HEADER ? NULL : id_table_get(blind->peers, get_u32(quote + BLIND_OWNER));
    if (peer == NULL || peer->worker != blind->worker || !peer->path.has_secret)
        return NULL;
    return CRYPTO_memcmp(peer->path.secret, quote + BLIND_SECRET, PATH_SECRET) == 0 ? peer : NULL;
}

struct path *blind_understand(const struct blind *blind, struct msghdr *message, size_t length, struct path *refused,
                              uint32_t *mtu)
{
    bool local = false;
    *mtu = mtu_in(message, &local);
    if (*mtu == 0)
        return NULL;
    if (local)
        return refused;
    struct peer *peer = quoted_peer(blind, message->msg_iov[0].iov_base, length);
    return peer == NULL ? NULL : &peer->path;
}

static void hear(const struct blind *blind, int fd, struct path *refused)
{
    for (unsigned i = 0; i < HEARD_AT_ONCE; i++) {
        uint8_t quote[BLIND_HEADER];
        alignas(struct cmsghdr) uint8_t control[512];
        struct iovec vector = {quote, sizeof quote};
        struct msghdr message = {
            .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        ssize_t length = recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
        if (length < 0)
            return;
        uint32_t mtu;
        struct path *path = blind_understand(blind, &message, (size_t)length, refused, &mtu);
        if (path != NULL)
            path_told(path, mtu);
    }
}

void blind_hear(const struct blind *blind)
{
    if (blind->fd_v4 >= 0)
        hear(blind, blind->fd_v4, NULL);
    if (blind->fd_v6 >= 0)
        hear(blind, blind->fd_v6, NULL);
}

/* A key that there is not: whoever gets such a packet drops it before anything is done with it. */
static unsigned unused_key(const struct peer *peer)
{
    unsigned key_id = KEY_IDS - 1;
    while (key_id > 0 && atomic_load(&peer->keys[key_id]) != NULL)
        key_id--;
    return key_id;
}

void blind_send(const struct blind *blind, struct peer *peer, const struct remote *remote, uint32_t length,
                struct counters *counters)
{
    int fd = remote->sockaddr.ss_family == AF_INET6 ? blind->fd_v6 : blind->fd_v4;
    struct path *path = &peer->path;
    if (path->tries == 1) /* a new one for each question: who was on the way once may not be any more */
        path->has_secret = getrandom(path->secret, PATH_SECRET, 0) == PATH_SECRET;
    if (fd < 0 || !path->has_secret)
        return;
    uint8_t bytes[LINK_PACKET_MAX + PATH_HEADER_MAX] = {0};
    put_u32(bytes, (P_DATA_V2 << 3 | unused_key(peer)) << 24 | peer->remote_id);
    put_u32(bytes + BLIND_OWNER, peer->id);
    memcpy(bytes + BLIND_SECRET, path->secret, PATH_SECRET);
    struct iovec vector = {bytes, length};
    const struct msghdr message = {
        .msg_name = (void *)&remote->sockaddr,
        .msg_namelen = remote->sockaddr_length,
        .msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = remote->control_length > 0 ? (void *)remote->control : NULL,
        .msg_controllen = remote->control_length,
    };
    count_total(counters, TOTAL_PATH_PROBES, 1);
    /* What routers have said about the one before is told once, by whatever is sent next. */
    for (unsigned i = 0; i < SENT_AGAIN && sendmsg(fd, &message, MSG_DONTWAIT) < 0; i++)
        hear(blind, fd, errno == EMSGSIZE ? path : NULL);
}
