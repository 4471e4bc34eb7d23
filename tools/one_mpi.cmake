# Included after find_package(MPI) and find_package(HDF5): a parallel HDF5 is linked with an MPI library, which must be that
# of the program. If it cannot be found out (static libraries, compilers that add MPI by themselves), nothing is refused.

# names_in(LIBRARY FIELD RESULT): the entries NEEDED or SONAME in the dynamic section of a shared library.
function(names_in library field result)
  set(names)
  if(CMAKE_READELF AND EXISTS ${library})
    execute_process(COMMAND ${CMAKE_READELF} -d ${library} OUTPUT_VARIABLE section ERROR_QUIET)
    string(REPLACE "[" "|" section "${section}")  # brackets would keep a CMake list from being split
    string(REPLACE "]" "|" section "${section}")
    string(REGEX MATCHALL "\\(${field}\\)[^\n|]*[|][^\n|]+" names "${section}")
    list(TRANSFORM names REPLACE ".*[|]" "")
  endif()
  set(${result} "${names}" PARENT_SCOPE)
endfunction()

set(mpi_names)
foreach(library IN LISTS MPI_CXX_LIBRARIES)
  names_in(${library} SONAME names)
  list(APPEND mpi_names ${names})
endforeach()
set(mpi_names_of_hdf5)
foreach(library IN LISTS HDF5_C_LIBRARIES)
  if(TARGET ${library})
    get_target_property(library ${library} LOCATION)
  endif()
  names_in("${library}" NEEDED names)
  list(FILTER names INCLUDE REGEX "^libmpi")
  list(APPEND mpi_names_of_hdf5 ${names})
endforeach()
foreach(name IN LISTS mpi_names_of_hdf5)
  if(mpi_names AND NOT name IN_LIST mpi_names)
    list(JOIN mpi_names ", " mpi_names)
    message(FATAL_ERROR "The HDF5 found needs ${name}, the program is built with ${mpi_names} (two MPI libraries in one process "
      "do not work); install the serial HDF5 (libhdf5-dev, hdf5~mpi) or a parallel one of this MPI, and clear the build folder")
  endif()
endforeach()
