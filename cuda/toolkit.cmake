# nvcc, and the libraries that the CUDA back end calls: cuBLASLt, NCCL where it is found, and cuDNN, of which only headers
# are needed: it is loaded at run time (cuda/kernels/attention/cudnn). The runtime is linked
# statically, and nothing needs a driver before the first kernel, so commands that compute nothing run anywhere.
set(SWITCHYARD_GPU_ARCHITECTURES "90" CACHE STRING "Compute capabilities to compile for, a list: 80 (A100), 90 (H100), 100 (B200)")
set(CMAKE_CUDA_ARCHITECTURES ${SWITCHYARD_GPU_ARCHITECTURES})
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake 3.25 does not know that nvcc 12 and later have C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
find_package(CUDAToolkit REQUIRED)
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})

if(NCCL_LIBRARY AND NCCL_INCLUDE_DIR)
  list(FILTER cuda_sources EXCLUDE REGEX "/without_nccl[.]cpp$")
else()
  list(FILTER cuda_sources EXCLUDE REGEX "/nccl[.]cpp$")
  message(STATUS "NCCL was not found: collectives of this build go through MPI")
endif()
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(CUDNN_INCLUDE_DIR)
  file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h cudnn_numbers REGEX "^#define CUDNN_M[AJORIN]+ [0-9]+")
  string(REGEX MATCHALL "[0-9]+" cudnn_numbers "${cudnn_numbers}")
  list(JOIN cudnn_numbers . cudnn_version)
endif()
if(CUDNN_INCLUDE_DIR AND cudnn_version VERSION_GREATER_EQUAL 9.10)
  list(FILTER cuda_sources EXCLUDE REGEX "/without_cudnn[.]cpp$")
  message(STATUS "cuDNN ${cudnn_version}: kernels.attention = cudnn is there where libcudnn.so.9 can be loaded")
else()
  list(FILTER cuda_sources EXCLUDE REGEX "/cudnn/[a-z_]+[.]cpp$")
  message(STATUS "cuDNN 9.10 or later was not found (cudnn_graph.h; -DCUDNN_INCLUDE_DIR= names its folder): attention of this build is our own")
endif()
add_library(switchyard_backend_cuda OBJECT ${cuda_sources})
target_include_directories(switchyard_backend_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
target_include_directories(switchyard_backend_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
if(CUDNN_INCLUDE_DIR)
  target_include_directories(switchyard_backend_cuda SYSTEM PRIVATE ${CUDNN_INCLUDE_DIR})
endif()
target_link_libraries(switchyard_backend_cuda PRIVATE fmt::fmt MPI::MPI_CXX)
list(JOIN SWITCHYARD_GPU_ARCHITECTURES , built_architectures)
set_source_files_properties(${PROJECT_SOURCE_DIR}/cuda/runtime.cpp PROPERTIES
  COMPILE_DEFINITIONS "SWITCHYARD_BUILT_ARCHITECTURES=\"${built_architectures}\"")
target_compile_options(switchyard_backend_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off;-Wall;-Wextra;-Wno-unused-parameter;-Wno-missing-field-initializers>
  # fmt does not trust nvcc with constexpr, although version 13 can. g++ 12 warns of fmt's own array (GCC bug 105762),
  # which nvcc does not show it as a system header.
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-diag-suppress=1675;--Werror=all-warnings;-DFMT_USE_CONSTEXPR=1;-Xptxas=-v;-Xcompiler=-ffp-contract=off,-Wall,-Wextra,-Wno-unused-parameter,-Wno-missing-field-initializers,-Wno-stringop-overflow>)
set_property(TARGET switchyard_backend_cuda PROPERTY CUDA_COMPILER_LAUNCHER
  ${PROJECT_SOURCE_DIR}/tools/keep_ptxas_report.sh ${CMAKE_CUDA_COMPILER_LAUNCHER})
# What must have the CPU's bits: no contraction of a b + c on the device either.
foreach(name random adamw/codes frozen/frozen_weight frozen/in_order)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/cuda/kernels/${name}.cu PROPERTIES COMPILE_OPTIONS "-fmad=false")
endforeach()

add_library(switchyard_libraries_cuda INTERFACE)
target_link_libraries(switchyard_libraries_cuda INTERFACE CUDA::cudart_static CUDA::cublasLt ${CMAKE_DL_LIBS})
if(NCCL_LIBRARY AND NCCL_INCLUDE_DIR)
  target_include_directories(switchyard_backend_cuda SYSTEM PRIVATE ${NCCL_INCLUDE_DIR})
  target_link_libraries(switchyard_libraries_cuda INTERFACE ${NCCL_LIBRARY})
endif()
