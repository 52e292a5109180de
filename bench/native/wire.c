/* A wire with a length: hands whole frames from one interface to the other, each so many microseconds late.
 *
 *     wire INTERFACE INTERFACE MICROSECONDS
 *
 * TCP on both ends sees a link, with its own acknowledgements and its own congestion control, which a proxy of TCP
 * would end at itself.  A delay that is the same for every frame keeps their order, so a ring each way is all it
 * needs.  Prints "ready", and at SIGTERM one line of JSON: frames, bytes, frames dropped as the ring was full, and how
 * late the latest frame was beyond its delay.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>

enum { FRAMES = 16384, FRAME_BYTES = 2048, AT_ONCE = 64, SOCKET_BYTES = 8 << 20 };

struct frame {
    int64_t due;
    int length;
    char bytes[FRAME_BYTES];
};

struct way {
    int from, to;
    struct frame *ring;
    uint64_t head, tail; /* taken in, and handed over */
};

static volatile sig_atomic_t ended;
static int64_t frames, bytes, dropped, latest;

static void end(int number) { (void)number, ended = 1; }

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int open_interface(const char *name) {
    int one = 1, size = SOCKET_BYTES;
    int packets = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
    if (packets < 0)
        fail("socket");
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(name)};
    if (bind(packets, (struct sockaddr *)&address, sizeof address) < 0)
        fail(name);
    /* Or what the other way sends here would come back. */
    if (setsockopt(packets, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) < 0)
        fail("PACKET_IGNORE_OUTGOING");
    setsockopt(packets, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(packets, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    return packets;
}

static void take_in(struct way *way, int64_t delay) {
    for (int count = 0; count < AT_ONCE; count++) {
        struct frame *frame = &way->ring[way->head % FRAMES];
        char lost[1];
        int full = way->head - way->tail == FRAMES;
        ssize_t length = recv(way->from, full ? lost : frame->bytes, full ? 1 : FRAME_BYTES, MSG_TRUNC);
        if (length < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            fail("recv");
        }
        if (full || length > FRAME_BYTES) { /* longer ones come of offloads that are on */
            dropped++;
            continue;
        }
        frame->due = now() + delay;
        frame->length = (int)length;
        way->head++;
    }
}

/* Hands over what is due; when the next one is, or the end of time. */
static int64_t hand_over(struct way *way) {
    while (way->tail < way->head) {
        struct frame *frame = &way->ring[way->tail % FRAMES];
        int64_t late = now() - frame->due;
        if (late < 0)
            return frame->due;
        if (late > latest)
            latest = late;
        if (send(way->to, frame->bytes, (size_t)frame->length, 0) < 0) {
            if (errno != EAGAIN && errno != ENOBUFS && errno != ENETDOWN)
                fail("send");
            dropped++;
        }
        frames++;
        bytes += frame->length;
        way->tail++;
    }
    return INT64_MAX;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "wire INTERFACE INTERFACE MICROSECONDS\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    int left = open_interface(arguments[1]), right = open_interface(arguments[2]);
    int64_t delay = atoll(arguments[3]) * 1000;
    struct way ways[2] = {{.from = left, .to = right}, {.from = right, .to = left}};
    for (int each = 0; each < 2; each++)
        if (!(ways[each].ring = malloc(sizeof(struct frame) * FRAMES)))
            fail("malloc");
    /* A wire does not wait for a processor: load and broker share one with it. */
    struct sched_param priority = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0)
        perror("sched_setscheduler");
    prctl(PR_SET_TIMERSLACK, 1000);
    puts("ready");
    fflush(stdout);
    while (!ended) {
        int64_t next = hand_over(&ways[0]), other = hand_over(&ways[1]);
        if (other < next)
            next = other;
        struct pollfd news[2] = {{.fd = left, .events = POLLIN}, {.fd = right, .events = POLLIN}};
        int64_t wait = next == INT64_MAX ? 0 : next - now();
        struct timespec time = {wait > 0 ? wait / 1000000000 : 0, wait > 0 ? wait % 1000000000 : 0};
        if (ppoll(news, 2, next == INT64_MAX ? NULL : &time, NULL) < 0 && errno != EINTR)
            fail("ppoll");
        for (int each = 0; each < 2; each++)
            if (news[each].revents)
                take_in(&ways[each], delay);
    }
    printf("{\"frames\":%lld,\"bytes\":%lld,\"dropped\":%lld,\"latest_us\":%lld}\n", (long long)frames,
           (long long)bytes, (long long)dropped, (long long)latest / 1000);
    return 0;
}
