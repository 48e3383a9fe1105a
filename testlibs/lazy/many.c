// Twenty functions that the caller's resolver supplies, to be called by many threads at once.
#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15) M(16) M(17) M(18) M(19)
#define DECLARE(n) int late_##n(int);
#define CALL(n) if (late_##n(n) != n + 1) return 1000 + n;
EACH(DECLARE)
int run(void) {
    EACH(CALL)
    return 42;
}
