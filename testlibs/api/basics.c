// One symbol of each kind.
int number = 5;
static int more = 1;
int add(int value) { return value + number + more; }
_Thread_local int per_thread = 7;
int next_per_thread(void) { return ++per_thread; }
const char text[20] = "twenty bytes";

static int first(void) { return 1; }
static int second(void) { return 2; }
static int (*resolve(void))(void) { return number == 5 ? second : first; }
int chosen(void) __attribute__((ifunc("resolve")));
int (*address_of_chosen(void))(void) { return chosen; }
