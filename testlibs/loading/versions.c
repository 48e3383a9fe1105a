// Two definitions of one name, told apart by their versions.
int number_old(void) { return 1; }
int number_new(void) { return 2; }
__asm__(".symver number_old, number@TEST_1");
__asm__(".symver number_new, number@@TEST_2");
int only_old(void) { return 3; }
__asm__(".symver only_old, hidden_old@TEST_1");
int run(void) { return 42; }
