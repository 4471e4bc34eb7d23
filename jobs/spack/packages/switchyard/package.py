# Spack recipe. Use: spack repo add jobs/spack && spack install switchyard; or the environment in jobs/spack/spack.yaml.
# Checked: executed once with stand-ins for Spack's directives. NOT run with Spack; the install rule was not tried either.
from spack.package import *


class Switchyard(CMakePackage):
    """Pretraining of LLaMA-type transformers on MPI machines with switched low-rank shards (SwitchLoRA)."""

    homepage = "https://example.org/switchyard"  # fill in
    git = homepage + ".git"
    license("Apache-2.0")

    version("main", branch="main")

    variant("tests", default=False, description="Build the tests")
    variant("arch", default="native", description="-march= of the CPU kernels", values=str)

    depends_on("cxx", type="build")
    depends_on("c", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("hdf5@1.10.7:")
    depends_on("boost +program_options")
    depends_on("onednn@2.6:")
    depends_on("sentencepiece")
    depends_on("nlohmann-json")
    depends_on("fmt@9:")
    depends_on("googletest", type="build", when="+tests")

    conflicts("%gcc@:11", msg="C++20 needs GCC 12 or later")

    generator("ninja")

    def cmake_args(self):
        return [
            self.define_from_variant("SWITCHYARD_TESTS", "tests"),
            self.define_from_variant("SWITCHYARD_ARCH", "arch"),
        ]

    def test_version(self):
        """the installed program says its version"""
        program = which(self.prefix.bin.switchyard)
        assert "switchyard" in program("--version", output=str.split, error=str.split)
