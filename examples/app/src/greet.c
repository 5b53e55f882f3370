#include <stdio.h>
#include <string.h>

#include "words.h"

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "nobody";
    if (strcmp(name, "--check") == 0) {
        return 0;
    }
    printf("%s, %s! (cbs example %s)\n", greeting(), name, VERSION);
    return 0;
}
