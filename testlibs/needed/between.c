// Needs what asks.
int ask(void);
int ask_for(void) { return ask(); }
