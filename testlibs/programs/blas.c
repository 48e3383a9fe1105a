// Multiplies matrices of whole numbers with OpenBLAS, whose results are exact for them.
#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>

void cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha,
                 const double *a, int lda, const double *b, int ldb, double beta, double *c,
                 int ldc);
double cblas_ddot(int n, const double *x, int incx, const double *y, int incy);
void openblas_set_num_threads(int);
int openblas_get_num_threads(void);
int openblas_get_parallel(void);

enum { N = 500, ROW_MAJOR = 101, NO_TRANS = 111 };

static int threads_of_process(void) {
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;
    for (struct dirent *entry; (entry = readdir(tasks));) count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

static int multiply(void) {
    double *a = malloc(sizeof(double[N][N])), *b = malloc(sizeof(double[N][N]));
    double *c = malloc(sizeof(double[N][N]));
    long row[N];
    int failed = 0;
    for (int i = 0; i < N * N; i++) {
        a[i] = (i * 7919L) % 101 - 50;
        b[i] = (i * 104729L) % 89 - 44;
        c[i] = 1;
    }
    cblas_dgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, N, N, N, 1, a, N, b, N, -2, c, N);
    for (int i = 0; i < N && !failed; i++) {
        for (int j = 0; j < N; j++) row[j] = -2;
        for (int k = 0; k < N; k++) {
            long factor = (long)a[i * N + k];
            for (int j = 0; j < N; j++) row[j] += factor * (long)b[k * N + j];
        }
        for (int j = 0; j < N; j++) failed |= c[i * N + j] != row[j];
    }
    free(a), free(b), free(c);
    return failed;
}

static void *in_thread(void *failed) {
    *(int *)failed = multiply();
    return 0;
}

int run(void) {
    if (openblas_get_parallel() != 1) return 1; // built with threads
    openblas_set_num_threads(4);
    if (openblas_get_num_threads() != 4) return 2;
    if (threads_of_process() < 4) return 3;
    if (multiply()) return 4;
    // From two threads at once, which share its workers.
    pthread_t threads[2];
    int failed[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], 0, in_thread, &failed[i]);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
    if (failed[0] || failed[1]) return 5;
    double x[] = {1, 2, 3}, y[] = {4, -5, 6};
    if (cblas_ddot(3, x, 1, y, 1) != 12) return 6;
    return 42;
}
