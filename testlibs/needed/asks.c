// Is needed, and has a definition of its own that those who need it may replace.
int answer(void) { return 7; }
int ask(void) { return answer(); }
