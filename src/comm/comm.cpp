// Communicators are freed by their last owner, before MPI_Finalize and never while an exception unwinds,
// because freeing is collective and a lone rank would wait in it.
#include "comm/comm.hpp"

#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <execinfo.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>

#include "comm/launcher.hpp"
#include "comm/library.hpp"
#include "core/error.hpp"

namespace switchyard {
namespace {

/// Before MPI_Init and after MPI_Finalize no other MPI function may be called.
bool mpi_is_running() {
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    return initialized && !finalized;
}

void free_communicator(MPI_Comm* handle) {
    if (std::uncaught_exceptions() == 0 && mpi_is_running()) MPI_Comm_free(handle);
    delete handle;
}

}  // namespace

void check_mpi(int code, const char* call, std::source_location where) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw InternalError(fmt::format("MPI error {}: {} in {} ({}:{})", code, std::string(text, length), call,
                                    where.file_name(), where.line()));
}

Comm Comm::own(MPI_Comm created) {
    Comm comm;
    comm.handle_ = std::shared_ptr<MPI_Comm>(new MPI_Comm(created), free_communicator);
    SWITCHYARD_MPI(MPI_Comm_set_errhandler(created, MPI_ERRORS_RETURN));
    SWITCHYARD_MPI(MPI_Comm_rank(created, &comm.rank_));
    SWITCHYARD_MPI(MPI_Comm_size(created, &comm.size_));
    return comm;
}

Comm Comm::duplicate(MPI_Comm source) {
    MPI_Comm created = MPI_COMM_NULL;
    SWITCHYARD_MPI(MPI_Comm_dup(source, &created));
    return own(created);
}

Comm Comm::imaginary(int rank, int size) {
    internal_check(size >= 1 && rank >= 0 && rank < size, "rank {} of {}", rank, size);
    Comm comm;
    comm.rank_ = rank;
    comm.size_ = size;
    return comm;
}

Comm Comm::split(int color, int key) const {
    if (size_ == 1) return {};
    MPI_Comm created = MPI_COMM_NULL;
    SWITCHYARD_MPI(MPI_Comm_split(handle(), color, key, &created));
    return own(created);
}

Comm Comm::split_by_node() const {
    if (size_ == 1) return {};
    MPI_Comm created = MPI_COMM_NULL;
    SWITCHYARD_MPI(MPI_Comm_split_type(handle(), MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &created));
    return own(created);
}

MPI_Comm Comm::handle() const {
    if (handle_) return *handle_;
    internal_check(size_ == 1, "a collective over {} ranks that do not exist", size_);
    return MPI_COMM_SELF;
}

namespace {

/// Open MPI starts a daemon beside a process that no launcher started, for children that it might spawn.
/// Without the daemon such a process starts in half the time, and nothing is left behind when it is killed.
/// But all such processes would then share one session folder, which each removes at its end and which a
/// starting one would miss, so session folders are turned off. The transports (btl tcp and ofi, UCX's tcp
/// under MPICH) would listen on TCP ports for peers that cannot exist; the process gets only the transport to
/// itself.
void prepare_single_process() {
    ::setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    ::setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
    ::setenv("OMPI_MCA_pml", "ob1", 0);
    ::setenv("OMPI_MCA_btl", "self", 0);
    ::setenv("UCX_TLS", "self", 0);
}

/// With the mpirun of another MPI library every process would believe that it is alone.
void require_fitting_launcher() {
    int size = 1;
    SWITCHYARD_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size));
    const int started = ranks_of_mpirun(std::getenv);
    require(size > 1 || started <= 1,
            "mpirun started {} processes, but MPI knows of one (each would do the whole work by itself); use "
            "the mpirun, or `srun --mpi=...`, of the MPI library that this program was built with, {}",
            started, mpi_library());
}

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv, bool needed)
    : started_(needed || started_as_one_of_several(std::getenv)),
      exceptions_at_start_(std::uncaught_exceptions()) {
    if (!started_) return;
    // Open MPI's handler of fatal signals prints a backtrace, for which the C library loads a file at first
    // use. If the failing thread held the heap's lock, the process would wait for itself, so the file is
    // loaded now.
    void* frame = nullptr;
    ::backtrace(&frame, 1);
    if (!started_by_launcher(std::getenv) && !started_as_one_of_several(std::getenv))
        prepare_single_process();
    ::setenv("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1", 0);  // MPICH's: a failed run has our message
    int provided = MPI_THREAD_SINGLE;
    SWITCHYARD_MPI(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided));
    require(provided >= MPI_THREAD_FUNNELED,
            "this MPI library provides thread level {} (OpenMP threads run beside MPI calls, which needs "
            "level {}, MPI_THREAD_FUNNELED); use an MPI library built with thread support",
            provided, static_cast<int>(MPI_THREAD_FUNNELED));
    for (MPI_Comm comm : {MPI_COMM_WORLD, MPI_COMM_SELF})
        SWITCHYARD_MPI(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
    require_fitting_launcher();
}

MpiSession::~MpiSession() {
    if (std::uncaught_exceptions() == exceptions_at_start_ && mpi_is_running()) MPI_Finalize();
}

Comm MpiSession::world() const {
    return started_ ? Comm::duplicate(MPI_COMM_WORLD) : Comm();
}

const char* gpu_awareness() {
#if defined(MPIX_CUDA_AWARE_SUPPORT)  // Open MPI
    return MPIX_Query_cuda_support() ? "yes" : "no";
#elif defined(MPIX_GPU_SUPPORT_CUDA)  // MPICH 3.4 and later, Cray MPICH
    int supported = 0;
    SWITCHYARD_MPI(MPIX_GPU_query_support(MPIX_GPU_SUPPORT_CUDA, &supported));
    return supported ? "yes" : "no";
#else
    return "unknown";
#endif
}

void abort_job() {
    int size = 1;
    if (mpi_is_running()) MPI_Comm_size(MPI_COMM_WORLD, &size);
    const bool launched = size > 1 || std::getenv("OMPI_COMM_WORLD_SIZE");
    if (launched && mpi_is_running()) MPI_Abort(MPI_COMM_WORLD, 1);
    // A process without others needs no MPI_Abort, which would hide its message behind seven lines of Open
    // MPI's. What failed before may fail or hang again in MPI_Finalize, which therefore gets 5 s.
    for (int signal : {SIGALRM, SIGSEGV, SIGBUS, SIGABRT}) std::signal(signal, [](int) { std::_Exit(1); });
    ::alarm(5);
    if (mpi_is_running()) MPI_Finalize();
    std::_Exit(1);
}

}  // namespace switchyard
