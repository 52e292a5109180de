/* How long a step takes of a walk through memory in no order: walk BYTES.
 *
 * A core's own cache holds a megabyte or less.  What is larger comes out of one that neighbours on the same
 * processor share, or out of memory: so this tells how much of that cache a virtual machine has just now.
 * Prints nanoseconds.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LINE = 64, STEPS = 1000000 };

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

int main(int count, char **arguments) {
    size_t bytes = count == 2 ? strtoull(arguments[1], NULL, 10) : 0;
    size_t lines = bytes / LINE;
    if (lines < 2) {
        fprintf(stderr, "walk BYTES: two lines of %d bytes at the least\n", LINE);
        return 2;
    }
    char *memory = aligned_alloc(LINE, lines * LINE);
    size_t *order = malloc(lines * sizeof *order);
    if (memory == NULL || order == NULL) {
        fprintf(stderr, "walk: no memory\n");
        return 1;
    }
    uint64_t random = 88172645463325252ULL; /* xorshift64, by Marsaglia */
    for (size_t line = 0; line < lines; line++) order[line] = line;
    for (size_t line = lines - 1; line > 0; line--) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t other = random % (line + 1), kept = order[line];
        order[line] = order[other], order[other] = kept;
    }
    /* One circle through all lines: what is read says where the next step goes, so none can begin early. */
    for (size_t line = 0; line < lines; line++)
        *(void **)(memory + order[line] * LINE) = memory + order[(line + 1) % lines] * LINE;
    void **at = (void **)memory;
    for (size_t step = 0; step < lines; step++) at = *at;
    double begun = now();
    for (size_t step = 0; step < STEPS; step++) at = *at;
    double ended = now();
    __asm__ volatile("" : : "r"(at));
    printf("%.1f\n", (ended - begun) / STEPS);
    return 0;
}
