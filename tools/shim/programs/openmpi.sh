# Open MPI: its components, with one process and with two.
# Packages: libopenmpi-dev openmpi-bin gcc libc6-dev
set -eu
if [ "$1" = build ]; then
    cat >x.c <<'END'
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, sum, one = 1;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (!rank) printf("%d of %d, %d\n", rank, size, sum);
    MPI_Finalize();
    return 0;
}
END
    mpicc -o x x.c
    exit 0
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none \
    OMPI_MCA_btl_base_warn_component_unused=0 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl=self,vader
./x
mpirun -np 2 ./x
