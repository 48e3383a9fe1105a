// `run` of a test library returns 42, or the number of the line that failed.
#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)
