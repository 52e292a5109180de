/* The load in open loop: requests at constant rates, whose times count from when each was to be sent.
 *
 *     steady PORT TARGET CONTENT-FILE CONNECTIONS FRESH GIVE-UP-MS RATE:SECONDS[!]...
 *
 * A request that is due takes a connection that is free; if there is none it waits, and that wait is part of its time:
 * a server that stands still for a second has a second of late answers, and not one (coordinated omission).  One that
 * could not be sent for GIVE-UP-MS has failed.  FRESH of a hundred requests come on a connection of their own, with
 * "Connection: close".  The rates follow one another without a pause.  One with an exclamation mark behind it ends
 * as soon as it cannot hold any more: when a request has failed, or one in a hundred of all was later than 50 ms.
 *
 * Prints one line of JSON: for each rate its counts and times in microseconds, and for each tenth of a second since
 * the start what was due in it (due, answered, failed, later than 50 ms) and how many answers came in it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RATES = 16, TENTHS = 6000, ANSWER_BYTES = 4096, EVENTS = 256, LATE_US = 50000 };
#define SECOND INT64_C(1000000000)
#define ANSWER (10 * SECOND) /* how long a server may take, as wrk has it */

enum state { CLOSED, CONNECTING, IDLE, WAITING };
enum wrong { CONNECT, WRITE, READ, STATUS, TIMEOUT, NOT_SENT, WRONGS };
static const char *WRONG[] = {"connect", "write", "read", "status", "timeout", "not_sent"};

struct rate {
    double per_second, seconds;
    int64_t begins, requests, sent; /* begins: nanoseconds since the start */
    int64_t wrong[WRONGS];
    uint32_t *times; /* microseconds */
    int64_t answered, failed, late;
    int strict;
};

struct tenth {
    uint32_t due, answered, failed, late, came;
};

struct connection {
    enum state state;
    int socket, fresh, filled;
    struct rate *rate;
    int64_t due, sent;
    char answer[ANSWER_BYTES];
};

static struct rate rates[RATES];
static int rate_count, connection_count, poll_queue, fresh_of_100, fresh_sum;
static struct tenth *tenths;
static struct connection *connections;
static int *waiting_line; /* connections that are free, the one that has been for longest first */
static int line_head, line_length;
static char *keeping, *closing;
static size_t keeping_bytes, closing_bytes;
static struct sockaddr_in server;
static int64_t start, give_up, under_way;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec - start;
}

static struct tenth *tenth(int64_t when) {
    int64_t number = when / (SECOND / 10);
    return &tenths[number < TENTHS ? number : TENTHS - 1];
}

static void free_again(struct connection *connection) {
    waiting_line[(line_head + line_length++) % connection_count] = (int)(connection - connections);
}

static void shut(struct connection *connection) {
    if (connection->state != CLOSED)
        close(connection->socket);
    connection->state = CLOSED;
}

static void failed(struct rate *rate, int64_t due, enum wrong what) {
    rate->wrong[what]++;
    rate->failed++;
    tenth(due)->failed++;
}

static void gone_wrong(struct connection *connection, enum wrong what) {
    int idle = connection->state == IDLE;
    shut(connection);
    if (idle)
        return; /* the server ended a connection that had nothing to do: the next request opens another */
    failed(connection->rate, connection->due, what);
    under_way--;
    free_again(connection);
}

static void watch(struct connection *connection, int how, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poll_queue, how, connection->socket, &event) < 0)
        fail("epoll_ctl");
}

static void put(struct connection *connection) {
    const char *request = connection->fresh ? closing : keeping;
    size_t bytes = connection->fresh ? closing_bytes : keeping_bytes;
    connection->state = WAITING;
    connection->filled = 0;
    if (send(connection->socket, request, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)bytes)
        gone_wrong(connection, WRITE);
}

static int connect_to_server(struct connection *connection) {
    int one = 1;
    connection->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connection->socket < 0)
        return -1;
    connection->state = CONNECTING;
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(connection->socket, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        return -1;
    watch(connection, EPOLL_CTL_ADD, EPOLLOUT);
    return 0;
}

static void begin(struct connection *connection, struct rate *rate, int64_t due, int64_t at) {
    connection->rate = rate;
    connection->due = due;
    connection->sent = at;
    fresh_sum += fresh_of_100;
    connection->fresh = fresh_sum >= 100;
    if (connection->fresh)
        fresh_sum -= 100;
    under_way++;
    if (connection->fresh)
        shut(connection);
    if (connection->state == IDLE)
        put(connection);
    else if (connect_to_server(connection) < 0)
        gone_wrong(connection, CONNECT);
}

/* The bytes of a whole answer, 0 if more are to come, -1 if it is none. */
static int whole(const char *answer, int filled, int *status, int *ends) {
    const char *end = memmem(answer, (size_t)filled, "\r\n\r\n", 4);
    if (!end)
        return filled == ANSWER_BYTES ? -1 : 0;
    if (memcmp(answer, "HTTP/1.", 7) != 0)
        return -1;
    *status = atoi(answer + 9);
    long content = -1;
    *ends = 0;
    for (const char *line = answer; line < end; line = (const char *)memmem(line, (size_t)(end + 2 - line), "\r\n", 2) + 2) {
        if (strncasecmp(line, "content-length:", 15) == 0)
            content = atol(line + 15);
        if (strncasecmp(line, "connection: close", 17) == 0)
            *ends = 1;
    }
    if (content < 0)
        content = *status == 204 ? 0 : -1;
    if (content < 0)
        return -1;
    long bytes = end + 4 - answer + content;
    return bytes > ANSWER_BYTES ? -1 : filled < bytes ? 0 : (int)bytes;
}

static void get(struct connection *connection) {
    int status = 0, ends = 0;
    ssize_t bytes = recv(connection->socket, connection->answer + connection->filled,
                         (size_t)(ANSWER_BYTES - connection->filled), MSG_DONTWAIT);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (bytes <= 0 || connection->state == IDLE) {
        gone_wrong(connection, READ);
        return;
    }
    connection->filled += (int)bytes;
    int length = whole(connection->answer, connection->filled, &status, &ends);
    if (length == 0)
        return;
    if (length < 0 || status < 200 || status > 299) {
        gone_wrong(connection, length < 0 ? READ : STATUS);
        return;
    }
    int64_t came = now(), took = (came - connection->due) / 1000;
    struct rate *rate = connection->rate;
    rate->times[rate->answered++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
    tenth(connection->due)->answered++;
    tenth(connection->due)->late += took > LATE_US;
    rate->late += took > LATE_US;
    tenth(came)->came++;
    under_way--;
    if (connection->fresh || ends)
        shut(connection);
    else
        connection->state = IDLE;
    free_again(connection);
}

static void ready(struct connection *connection) {
    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->socket, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            gone_wrong(connection, CONNECT);
            return;
        }
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
        put(connection);
    } else if (connection->state != CLOSED) {
        get(connection);
    }
}

/* Sends what is due and has a connection; when the next one is due, or -1 after the last. */
static int64_t send_due(int *current) {
    int64_t at = now();
    for (; *current < rate_count; (*current)++) {
        struct rate *rate = &rates[*current];
        if (rate->strict && (rate->failed || rate->late * 100 > rate->requests))
            rate->requests = rate->sent;
        while (rate->sent < rate->requests) {
            int64_t due = rate->begins + (int64_t)((double)rate->sent * 1e9 / rate->per_second);
            if (due > at)
                return due;
            if (at - due > give_up) {
                failed(rate, due, NOT_SENT);
            } else {
                if (!line_length)
                    return at + SECOND; /* the first that is free again wakes us sooner */
                struct connection *connection = &connections[waiting_line[line_head]];
                line_head = (line_head + 1) % connection_count;
                line_length--;
                begin(connection, rate, due, at);
            }
            tenth(due)->due++;
            rate->sent++;
        }
    }
    return -1;
}

static void give_up_waiting(int64_t at) {
    for (int each = 0; each < connection_count; each++) {
        struct connection *connection = &connections[each];
        if ((connection->state == WAITING || connection->state == CONNECTING) && at - connection->sent > ANSWER)
            gone_wrong(connection, TIMEOUT);
    }
}

static void run(void) {
    struct epoll_event events[EVENTS];
    int current = 0;
    int64_t looked = 0;
    for (;;) {
        int64_t next = send_due(&current), at = now();
        if (next < 0 && !under_way)
            return;
        if (at - looked > SECOND / 10) {
            give_up_waiting(at);
            looked = at;
        }
        int64_t wait = next < 0 || next - at > SECOND / 10 ? SECOND / 10 : next > at ? next - at : 0;
        struct timespec time = {0, wait};
        int count = epoll_pwait2(poll_queue, events, EVENTS, &time, NULL);
        if (count < 0 && errno != EINTR)
            fail("epoll_pwait2");
        for (int each = 0; each < count; each++)
            ready(events[each].data.ptr);
    }
}

static int compare(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static uint32_t percentile(const struct rate *rate, double share) {
    if (!rate->answered)
        return 0;
    int64_t place = (int64_t)(share * (double)rate->answered);
    return rate->times[place < rate->answered ? place : rate->answered - 1];
}

static void report(void) {
    printf("{\"rates\":[");
    for (int each = 0; each < rate_count; each++) {
        struct rate *rate = &rates[each];
        qsort(rate->times, (size_t)rate->answered, sizeof *rate->times, compare);
        printf("%s{\"per_second\":%g,\"seconds\":%g,\"requests\":%lld,\"answered\":%lld,\"p50_us\":%u,\"p90_us\":%u,"
               "\"p99_us\":%u,\"p999_us\":%u,\"most_us\":%u,\"wrong\":{",
               each ? "," : "", rate->per_second, rate->seconds, (long long)rate->requests, (long long)rate->answered,
               percentile(rate, .5), percentile(rate, .9), percentile(rate, .99), percentile(rate, .999),
               percentile(rate, 1));
        const char *comma = "";
        for (int what = 0; what < WRONGS; what++)
            if (rate->wrong[what]) {
                printf("%s\"%s\":%lld", comma, WRONG[what], (long long)rate->wrong[what]);
                comma = ",";
            }
        printf("}}");
    }
    printf("],\"tenths\":[");
    int last = TENTHS - 1;
    while (last >= 0 && !tenths[last].due && !tenths[last].came)
        last--;
    for (int each = 0; each <= last; each++)
        printf("%s[%u,%u,%u,%u,%u]", each ? "," : "", tenths[each].due, tenths[each].answered, tenths[each].failed,
               tenths[each].late, tenths[each].came);
    puts("]}");
}

static char *request(const char *target, const char *field, const char *content, size_t content_bytes, size_t *bytes) {
    char *text = malloc(1024 + content_bytes);
    if (!text)
        fail("malloc");
    int head = snprintf(text, 1024, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sContent-Length: %zu\r\n\r\n", target,
                        ntohs(server.sin_port), field, content_bytes);
    memcpy(text + head, content, content_bytes);
    *bytes = (size_t)head + content_bytes;
    return text;
}

int main(int count, char **arguments) {
    if (count < 8 || count - 7 > RATES) {
        fprintf(stderr, "steady PORT TARGET CONTENT-FILE CONNECTIONS FRESH GIVE-UP-MS RATE:SECONDS...\n");
        return 2;
    }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    static char content[1 << 20];
    FILE *file = fopen(arguments[3], "rb");
    if (!file)
        fail(arguments[3]);
    size_t content_bytes = fread(content, 1, sizeof content, file);
    fclose(file);
    keeping = request(arguments[2], "", content, content_bytes, &keeping_bytes);
    closing = request(arguments[2], "Connection: close\r\n", content, content_bytes, &closing_bytes);
    connection_count = atoi(arguments[4]);
    fresh_of_100 = atoi(arguments[5]);
    give_up = atoll(arguments[6]) * 1000000;
    int64_t begins = 0;
    for (int each = 7; each < count; each++) {
        struct rate *rate = &rates[rate_count++];
        rate->strict = strchr(arguments[each], '!') != NULL;
        if (sscanf(arguments[each], "%lf:%lf", &rate->per_second, &rate->seconds) != 2 || rate->per_second <= 0) {
            fprintf(stderr, "%s: not RATE:SECONDS\n", arguments[each]);
            return 2;
        }
        rate->requests = (int64_t)(rate->per_second * rate->seconds);
        rate->begins = begins;
        begins += (int64_t)(rate->seconds * 1e9);
        if (!(rate->times = calloc((size_t)rate->requests + 1, sizeof *rate->times)))
            fail("calloc");
    }
    connections = calloc((size_t)connection_count, sizeof *connections);
    waiting_line = calloc((size_t)connection_count, sizeof *waiting_line);
    tenths = calloc(TENTHS, sizeof *tenths);
    poll_queue = epoll_create1(0);
    if (!connections || !waiting_line || !tenths || poll_queue < 0)
        fail("steady");
    prctl(PR_SET_TIMERSLACK, 1000);
    for (int each = 0; each < connection_count; each++) {
        struct connection *connection = &connections[each];
        if (fresh_of_100 < 100) { /* there before the first request is due */
            connection->socket = socket(AF_INET, SOCK_STREAM, 0);
            int one = 1;
            if (connection->socket < 0 ||
                connect(connection->socket, (struct sockaddr *)&server, sizeof server) < 0)
                fail("connect");
            setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            connection->state = IDLE;
            watch(connection, EPOLL_CTL_ADD, EPOLLIN);
        }
        free_again(connection);
    }
    start = now();
    run();
    report();
    return 0;
}
