// Open MPI gives its name, build and date in one line; MPICH and Cray MPICH write tables of many lines.
#include "comm/library.hpp"

#include <cctype>

#include "comm/comm.hpp"

namespace switchyard {

std::string mpi_library() {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length);
    std::string line;
    for (const char* c = text; *c != '\0' && *c != '\n'; ++c) {  // the length may include a terminating zero
        const bool blank = std::isspace(static_cast<unsigned char>(*c));
        if (!blank)
            line += *c;
        else if (!line.empty() && line.back() != ' ')
            line += ' ';
    }
    return line;
}

}  // namespace switchyard
