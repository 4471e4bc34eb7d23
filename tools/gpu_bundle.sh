#!/usr/bin/env bash
# Builds what a bare machine with a GPU needs to be checked by gpu_check.sh, in one folder of at most 60 MiB: the CUDA
# program and its tests, MPI and HDF5 with their libraries, tokens, and the CPU's numbers. What the machine must have itself:
# a driver, Python, and cuBLASLt and NCCL for CUDA 13, which are ten times as large as the bundle (a PyTorch for CUDA 13 brings
# both).
set -euo pipefail
# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
    cat <<'TEXT'
tools/gpu_bundle.sh [--output=.gpu] [--check]
  --check  starts the bundle in a chroot that has nothing else (as root): tokenize and plan by the GPU program, and three steps
           and a checkpoint of two ranks by the CPU program, which is lent to it together with oneDNN
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
build=$root/build/gpu-bundle # for any CPU of the last ten years: that of the other machine is unknown

# Libraries of a program that the other machine lacks: all but the C and C++ libraries and NVIDIA's.
libraries_of() {
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
        grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libstdc\+\+|libgcc_s|ld-linux[^/]*|libcublas(Lt)?|libnccl|libcudart|libcudnn[^/]*)\.so'
}

copy_mpi() {
    local prefix plugins plugin
    prefix=$(dirname "$(dirname "$(readlink -f "$(command -v mpirun)")")")
    plugins=$(dirname "$(find /usr/lib -path '*openmpi*' -name 'mca_btl_self.so' -print -quit)")
    [[ -d $plugins ]] || die "Open MPI's components are not found (the bundle starts ranks with it); install openmpi-bin"
    mkdir -p "$out/bin" "$out/lib/openmpi3" "$out/lib/pmix" "$out/share/openmpi" "$out/etc"
    cp -L "$prefix/bin/orted" "$out/bin/"
    cp -L "$(command -v mpirun)" "$out/bin/mpirun"
    for plugin in "$plugins"/mca_*.so; do # ranks on one machine need no networks
        [[ $(ldd "$plugin") =~ /(libfabric|libucp|libuct|libpsm|libibverbs|librdmacm|liboshmem|libnl-) ]] || cp -L "$plugin" "$out/lib/openmpi3/"
    done
    find /usr/lib -path '*/pmix*/lib/*' -name '*mca_*.so' -exec cp -L {} "$out/lib/pmix/" \;
    cp -rL /usr/share/openmpi/. "$out/share/openmpi/"
    cp -L /etc/openmpi/*.conf "$out/etc/" 2>/dev/null || true
}

write_environment() {
    cat >"$out/environment.sh" <<'TEXT'
# Where the bundle's libraries lie, and those that PyTorch or a CUDA toolkit brings.
B=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
torch_libraries=$(python3 - <<'PYTHON' 2>/dev/null || true
import glob, importlib.util, os
spec = importlib.util.find_spec("torch")
if spec:
    site = os.path.dirname(os.path.dirname(spec.origin))
    print(":".join(glob.glob(os.path.join(site, "nvidia", "*", "lib"))))
PYTHON
)
for folder in $torch_libraries /usr/local/cuda/lib64; do nvidia_libraries=${nvidia_libraries:-}:$folder; done
export PATH="$B/bin:$PATH" LD_LIBRARY_PATH="$B/lib$nvidia_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export OPAL_PREFIX=$B OPAL_LIBDIR=$B/lib OPAL_PKGLIBDIR=$B/lib/openmpi3 OPAL_DATADIR=$B/share OPAL_PKGDATADIR=$B/share/openmpi
export OPAL_SYSCONFDIR=$B/etc OPAL_BINDIR=$B/bin PMIX_INSTALL_PREFIX=$B PMIX_MCA_mca_base_component_path=$B/lib/pmix
export PMIX_MCA_pcompress_base_silence_warning=1 HWLOC_HIDE_ERRORS=2 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export GPU_CHECK_MPIRUN="mpirun --mca plm isolated --mca btl self,vader --mca btl_vader_single_copy_mechanism none --bind-to none --oversubscribe"
TEXT
}

copy_programs() {
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
    say "Tokens, and the CPU's numbers (a minute)"
    python3 - "$out" "$build/switchyard-cpu" <<'PYTHON'
import pathlib, random, subprocess, sys
out, program = pathlib.Path(sys.argv[1]), sys.argv[2]
draw, text = random.Random(0), out / "text.txt"
words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(40000)]
text.write_text("\n\n".join(" ".join(draw.choices(words, k=400)) for _ in range(500)) + "\n")
subprocess.run([program, "tokenize", text, f"--output={out / 'tokens.h5'}", "--vocab_size=32100", "--quiet"], check=True)
text.unlink()
PYTHON
    python3 "$out/gpu_check.py" --programs="$build" --suffix=-cpu --tokens="$out/tokens.h5" --make-references="$out/references.json"
}

# copy_with_libraries FOLDER FILE...: files to the same paths below FOLDER, with the libraries that they name.
copy_with_libraries() {
    local folder=$1
    shift
    { printf '%s\n' "$@"; ldd "$@" | grep -oE '/[^ :]+\.so[^ :]*'; } | sort -u | xargs cp -L --parents -t "$folder"
}

# A chroot with the C and C++ libraries, bash and the bundle: whatever else the bundle needs is missing there. Of the machine's own
# libraries it has cuBLASLt and NCCL, and for the CPU program, which trains where there is no GPU, oneDNN.
check_in_chroot() {
    local nvidia library
    jail=$(mktemp -d)
    trap 'for folder in cuda dev proc; do mountpoint -q "$jail/$folder" && umount "$jail/$folder"; done; rm -rf --one-file-system "$jail"' EXIT
    mkdir -p "$jail"/{tmp,dev,proc,cuda,etc,lent}
    ln -s usr/bin usr/lib usr/lib64 "$jail/" && mkdir -p "$jail"/usr/{bin,lib,lib64}
    cp -r "$out" "$jail/bundle"
    printf 'root:x:0:0::/:/bin/bash\n' >"$jail/etc/passwd"
    copy_with_libraries "$jail" /usr/bin/{bash,env,cat,dirname}
    for library in libc libm libdl libpthread librt libresolv libstdc++ libgcc_s libutil; do
        ldconfig -p | awk -v name="$library.so" 'index($1, name) == 1 && /x86-64/ && !found++ {print $NF}' | xargs -r cp -L --parents -t "$jail"
    done
    cp "$build/switchyard-cpu" "$jail/lent/"
    ldd "$build/switchyard-cpu" | awk '/libdnnl|libOpenCL/ {print $3}' | xargs cp -L -t "$jail/lent/"
    nvidia=$(ldd "$build/switchyard" | awk '/libcublasLt|libnccl/ {print $3}' | xargs -n 1 dirname | sort -u)
    [[ $(wc -l <<<"$nvidia") -eq 1 ]] || die "cuBLASLt and NCCL lie in several folders ($nvidia; the chroot sees one); put links to both into one"
    mount --bind "$nvidia" "$jail/cuda"
    mount --bind /dev "$jail/dev"
    mount -t proc proc "$jail/proc"
    # shellcheck disable=SC2016  # expanded inside
    chroot "$jail" /bin/bash -euc '
        source /bundle/environment.sh
        export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/cuda
        settings=(--model.preset=nano --data.tokens=/tmp/tokens.h5 --data.seq_len=16 --data.global_batch=4 --data.micro_batch=1)
        for n in 1 2 3; do for i in {1..300}; do echo "a sentence of words number $i."; done; echo; done >/tmp/text
        echo "one rank of the GPU program"
        switchyard tokenize /tmp/text --output=/tmp/tokens.h5 --vocab_size=300 --validation=0 --quiet
        switchyard plan "${settings[@]}" >/tmp/plan
        echo "two ranks of the CPU program"
        export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/lent OMP_NUM_THREADS=1
        $GPU_CHECK_MPIRUN -n 2 /lent/switchyard-cpu train "${settings[@]}" --run.dir=/tmp/run --run.stop_step=3
        switchyard verify /tmp/run/checkpoints/step_00000003.h5'
}

command -v nvcc >/dev/null || die "nvcc is not in PATH (the bundle holds a program for GPUs); install the CUDA toolkit 13"
rm -rf "$out" && mkdir -p "$out"
build_preset gpu-bundle --target switchyard switchyard-cpu device_tests tiny_state tiny_state-cpu
copy_programs
make_data
size_mib=$(du -sm "$out" | cut -f1)
say "$out: $size_mib MiB"
[[ $size_mib -le $limit_mib ]] || die "the bundle is larger than $limit_mib MiB (it may not travel); look at: du -a $out | sort -n"
[[ $check -eq 0 ]] || check_in_chroot
say "Copy it to a machine with a GPU and start there: bash $(basename "$out")/gpu_check.sh --correct"
