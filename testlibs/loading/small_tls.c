// Few thread-local variables, so that they fit where initial exec needs them.
#include "check.h"

_Thread_local int variable = 42;
static _Thread_local int runs;
#ifdef MORE
static _Thread_local char more[MORE];
#endif

int runs_of_this_thread(void) { return runs; }
int run(void) {
    CHECK(variable == 42 + runs);
#ifdef MORE
    CHECK(more[0] == runs && more[MORE - 1] == runs);
    more[0]++, more[MORE - 1]++;
#endif
    variable++, runs++;
    return 42;
}
