/* A library that lacks a function and a variable. How it is linked adds other faults. */
extern int missing_function(void);
extern int missing_variable;

int run(void) { return missing_function() + missing_variable; }
