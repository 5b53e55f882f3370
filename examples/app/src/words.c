#include "words.h"

const char *greeting(void) {
    return "hello";
}

#ifdef TEST
#include <stdio.h>
#include <string.h>

int main(void) {
    if (strcmp(greeting(), "hello") != 0) {
        puts("greeting: FAILED");
        return 1;
    }
    puts("greeting: ok");
    return 0;
}
#endif
