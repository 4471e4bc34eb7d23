#!/usr/bin/env bash
# Builds what a bare machine with a GPU needs to be checked by gpu_check.sh, in one folder of at most 60 MiB: the CUDA
# program and its tests, MPI and HDF5 with their libraries, tokens, and the CPU's numbers. What the machine must have itself:
# a driver, Python, and cuBLASLt (a PyTorch for CUDA 13 brings it, with NCCL).
set -euo pipefail
# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
    cat <<'TEXT'
tools/gpu_bundle.sh [--output=.gpu] [--check]
  --check  starts the bundle in a chroot that has nothing else (as root): tokenize and plan on one rank, two ranks by mpirun
TEXT
}

out=$root/.gpu check=0
for argument in "$@"; do
    case $argument in
        --output=*) out=$(realpath -m "${argument#*=}") ;;
        --check) check=1 ;;
        *) usage && exit 0 ;;
    esac
done
limit_mib=60

build_programs() {
    # The CPU of the other machine is unknown, but it has a GPU of this century beside it.
    configure_arguments=(-DSWITCHYARD_ARCH=x86-64-v3 -DSWITCHYARD_BACKENDS="cuda;cpu" -DSWITCHYARD_GPU_ARCHITECTURES=90)
    build_preset cuda --target switchyard switchyard-cpu device_tests tiny_state tiny_state-cpu
    configure_arguments=()
}

# Libraries of a program that the other machine lacks: all but the C and C++ libraries and NVIDIA's.
libraries_of() {
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
        grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libstdc\+\+|libgcc_s|ld-linux[^/]*|libcublas(Lt)?|libnccl|libcudart|libcudnn[^/]*|libgomp)\.so'
}

copy_mpi() {
    local prefix plugins
    prefix=$(dirname "$(dirname "$(readlink -f "$(command -v mpirun)")")")
    plugins=$(dirname "$(find /usr/lib -path '*openmpi*' -name 'mca_btl_self.so' -print -quit)")
    [[ -d $plugins ]] || die "Open MPI's components are not found (the bundle starts ranks with it); install openmpi-bin"
    mkdir -p "$out/bin" "$out/lib/openmpi3" "$out/lib/pmix" "$out/share/openmpi" "$out/etc"
    cp -L "$prefix/bin/orted" "$out/bin/"
    cp -L "$(command -v mpirun)" "$out/bin/mpirun"
    cp -L "$plugins"/mca_*.so "$out/lib/openmpi3/"
    find /usr/lib -path '*pmix*' -name 'mca_*.so' -exec cp -L {} "$out/lib/pmix/" \;
    cp -rL /usr/share/openmpi/. "$out/share/openmpi/"
    cp -L /etc/openmpi/*.conf "$out/etc/" 2>/dev/null || true
}

write_environment() {
    cat >"$out/environment.sh" <<'TEXT'
# Where the bundle's libraries lie, and those that PyTorch brings.
B=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
torch_libraries=$(python3 - <<'PYTHON' 2>/dev/null || true
import glob, importlib.util, os
spec = importlib.util.find_spec("torch")
if spec:
    site = os.path.dirname(os.path.dirname(spec.origin))
    print(":".join(glob.glob(os.path.join(site, "nvidia", "*", "lib"))))
PYTHON
)
export PATH="$B/bin:$PATH" LD_LIBRARY_PATH="$B/lib:$torch_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export OPAL_PREFIX=$B OPAL_LIBDIR=$B/lib OPAL_PKGLIBDIR=$B/lib/openmpi3 OPAL_DATADIR=$B/share OPAL_PKGDATADIR=$B/share/openmpi
export OPAL_SYSCONFDIR=$B/etc OPAL_BINDIR=$B/bin PMIX_INSTALL_PREFIX=$B PMIX_MCA_mca_base_component_path=$B/lib/pmix
export PMIX_MCA_pcompress_base_silence_warning=1 HWLOC_HIDE_ERRORS=2 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export GPU_CHECK_MPIRUN="mpirun --mca plm isolated --mca btl self,vader --mca btl_vader_single_copy_mechanism none --bind-to none --oversubscribe"
TEXT
}

copy_programs() {
    local build=$root/build/cuda
    mkdir -p "$out/bin" "$out/lib"
    cp "$build/switchyard" "$build/tests/device_tests" "$build/tests/tiny_state" "$out/bin/"
    cp "$root"/tools/{gpu_check.sh,gpu_check.py,bench_torch.py} "$out/"
    strip "$out"/bin/{switchyard,device_tests,tiny_state}
    copy_mpi
    # shellcheck disable=SC2046
    cp -L $(libraries_of "$out"/bin/* "$out"/lib/openmpi3/*.so "$out"/lib/pmix/*.so) "$out/lib/"
    strip --strip-unneeded "$out"/lib/*.so* "$out"/lib/*/*.so 2>/dev/null || true
    write_environment
}

# Tokens for models with a vocabulary of 32,100, and the CPU's numbers.
make_data() {
    local build=$root/build/cuda
    say "Tokens, and the CPU's numbers (a minute)"
    python3 - "$out" "$build/switchyard-cpu" <<'PYTHON'
import pathlib, random, subprocess, sys
out, program = pathlib.Path(sys.argv[1]), sys.argv[2]
draw, text = random.Random(0), out / "text.txt"
words = [f"word{i}" for i in range(20000)]
text.write_text("\n\n".join(" ".join(draw.choices(words, k=400)) for _ in range(500)) + "\n")
subprocess.run([program, "tokenize", text, f"--output={out / 'tokens.h5'}", "--vocab_size=32100", "--quiet"], check=True)
text.unlink()
PYTHON
    python3 "$out/gpu_check.py" --programs="$build" --suffix=-cpu --tokens="$out/tokens.h5" --make-references="$out/references.json"
}

# A chroot with the C library, bash and the bundle: whatever else it needs is missing there.
check_in_chroot() {
    local jail toolkit
    jail=$(mktemp -d)
    toolkit=$(dirname "$(ldd "$root/build/cuda/switchyard" | awk '/libcublasLt/ {print $3}')")
    mkdir -p "$jail"/{bin,tmp,dev,proc,cuda,bundle,lib64}
    touch "$jail/dev/null"
    cp -r "$out/." "$jail/bundle/"
    mount --bind "$toolkit" "$jail/cuda"
    mount --bind /dev "$jail/dev"
    mount -t proc proc "$jail/proc"
    # shellcheck disable=SC2064
    trap "umount '$jail/proc' '$jail/dev' '$jail/cuda'; rm -rf '$jail'" EXIT
    local program
    for program in bash env cat hostname dirname; do
        cp -L "$(command -v $program)" "$jail/bin/"
        ldd "$(command -v $program)" | awk '$2 == "=>" {print $3} $1 ~ /^\// {print $1}' | xargs -I{} cp --parents -L {} "$jail" 2>/dev/null || true
    done
    local libc
    for libc in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libstdc++.so.6 libgcc_s.so.1 libgomp.so.1 libnss_files.so.2 libutil.so.1; do
        local path
        path=$(ldconfig -p | awk -v name="$libc" '$1 == name && /x86-64/ {print $NF; exit}')
        [[ -z $path ]] || cp --parents -L "$path" "$jail"
    done
    printf 'root:x:0:0::/:/bin/bash\n' >"$jail/passwd" && mkdir -p "$jail/etc" && mv "$jail/passwd" "$jail/etc/passwd"
    say "In the chroot: one rank, then two"
    # shellcheck disable=SC2016  # expanded inside
    chroot "$jail" /bin/bash -c '
        set -e
        source /bundle/environment.sh
        export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/cuda
        for n in 1 2; do for i in {1..300}; do echo "a sentence of words number $i."; done; done >/tmp/text
        switchyard tokenize /tmp/text --output=/tmp/tokens.h5 --vocab_size=300 --quiet
        switchyard plan --model.preset=nano --data.tokens=/tmp/tokens.h5 --data.seq_len=16 --data.global_batch=4 --data.micro_batch=1 >/tmp/plan
        $GPU_CHECK_MPIRUN -n 2 switchyard plan --model.preset=nano --data.tokens=/tmp/tokens.h5 --data.seq_len=16 --data.global_batch=4 --data.micro_batch=1 >/tmp/plan2
        cat /tmp/plan2'
}

command -v nvcc >/dev/null || die "nvcc is not in PATH (the bundle holds a program for GPUs); install the CUDA toolkit 13"
rm -rf "$out" && mkdir -p "$out"
build_programs
copy_programs
make_data
size_mib=$(du -sm "$out" | cut -f1)
say "$out: $size_mib MiB"
[[ $size_mib -le $limit_mib ]] || die "the bundle is larger than $limit_mib MiB (it may not travel); look at: du -a $out | sort -n"
[[ $check -eq 0 ]] || check_in_chroot
say "Copy it to a machine with a GPU and start there: bash $(basename "$out")/gpu_check.sh --correct"
