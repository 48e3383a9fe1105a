/* What the ranks run: a part of a sum each, and a reduction inside the library. It is sent to the ranks as bytes. It
 * finds MPI in the host, which is linked with it. */
#include <mpi.h>

/* Integrates 4 / (1 + x * x) from 0 to 1 in `steps` steps, which gives pi. All ranks call it. */
double integrate(long steps) {
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    double part = 0, sum = 0, width = 1.0 / (double)steps;
    for (long step = rank; step < steps; step += ranks) {
        double x = width * ((double)step + 0.5);
        part += 4 / (1 + x * x);
    }
    MPI_Allreduce(&part, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sum * width;
}
