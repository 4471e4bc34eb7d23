#!/usr/bin/env python3
"""Files made to do harm: links and storage that lead out of a file, wrong numbers, structures that crash HDF5. Every
command reports what is wrong and ends with 1 (diff: 2); a run falls back to the checkpoint before.

    test_crafted_files.py --build=DIRECTORY [unittest arguments]
"""
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import unittest

import h5py
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program
from support.program import switchyard

LIMIT_S = 30  # no command may take longer, whatever the file
MASK = 2**64 - 1


def mix64(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


class Digest:
    """As in io/checkpoint/catalog.cpp, because a crafted file has the right checksum."""

    def __init__(self):
        self.state = 0

    def word(self, value):
        self.state = mix64((self.state * 3 + 0x9E3779B97F4A7C15 + (value & MASK)) & MASK)

    def text(self, text):
        self.word(len(text))
        for i in range(0, len(text), 8):
            self.word(int.from_bytes(text[i : i + 8], "little"))

    def attribute(self, value):
        if isinstance(value, (bytes, np.bytes_)):
            self.word(2)
            self.text(bytes(value))
        elif np.issubdtype(value.dtype, np.integer):
            self.word(0)
            self.word(int(value))
        else:
            self.word(1)
            self.word(struct.unpack("<Q", struct.pack("<d", float(value)))[0])


TYPES = {"<f4": b"f32", "<f8": b"f64", "<i2": b"i16", "<i4": b"i32", "<i8": b"i64", "|u1": b"u8"}


def seal(path):
    """Repairs the checksum of the catalog."""
    with h5py.File(path, "r+") as file:
        objects = {"/": file}
        file.visititems(lambda name, item: objects.__setitem__("/" + name, item))
        digest = Digest()
        for name in sorted(objects, key=str.encode):
            item = objects[name]
            hidden = {"catalog_checksum"} if name == "/" else {"checksum"} if isinstance(item, h5py.Dataset) else set()
            keys = sorted(set(item.attrs) - hidden, key=str.encode)
            digest.text(name.encode())
            digest.word(len(keys))
            for key in keys:
                digest.text(key.encode())
                digest.attribute(item.attrs[key])
            digest.word(isinstance(item, h5py.Dataset))
            if isinstance(item, h5py.Dataset):
                digest.text(TYPES[item.dtype.str])
                digest.word(len(item.shape))
                for extent in item.shape:
                    digest.word(extent)
                digest.word(1)
                digest.word(int(item.attrs["checksum"]))
        file.attrs.modify("catalog_checksum", np.uint64(digest.state))


def set_attribute(file, key, value):
    del file.attrs[key]
    file.attrs[key] = value


class Crafted(program.Test):
    """One trained run for all; tests work on copies."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = pathlib.Path(cls._class_folder.name)
        cls.base = program.Run(folder / "base", cls.tokens, **{"run.save_interval": 2, "run.keep_last": 9})
        code, output = cls.base.train(run__stop_step=4)
        assert code == 0, output

    def copy(self, source, name="crafted.h5"):
        path = self.folder / name
        shutil.copy(source, path)
        return path

    def crafted_checkpoint(self, change, sealed=True, name="crafted.h5"):
        path = self.copy(self.base.checkpoint(4), name)
        with h5py.File(path, "r+") as file:
            change(file)
        if sealed:
            seal(path)
        return path

    def crafted_tokens(self, change, name="crafted.h5"):
        path = self.copy(self.tokens, name)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    def refused(self, *words, says=(), preload=None):
        """The command must end by itself with 1 or 2, and name the reason."""
        environment = dict(program.ENVIRONMENT)
        if preload:
            environment["LD_PRELOAD"] = str(preload)
        result = switchyard(*words, env=environment, timeout=4 * LIMIT_S)
        text = result.stdout + result.stderr
        self.assertIn(result.returncode, (1, 2), f"{words}: {result.returncode}\n{text}")
        self.assertNotIn("std::", text)
        for part in says:
            self.assertIn(part, text, words)
        return text

    def train_words(self, tokens, name="new", **settings):
        return ["train", *program.arguments({**program.TINY, "data.tokens": tokens, "run.dir": self.folder / name,
                                             "run.stop_step": 1, **settings})]  # fmt: skip

    def all_commands_refuse_checkpoint(self, path, *says):
        self.refused("verify", path, says=says)
        for words in (["eval", path, f"--data.tokens={self.tokens}"],
                      ["generate", path, "--prompt=ka", f"--data.tokens={self.tokens}"],
                      ["export", path, self.folder / "exported", f"--data.tokens={self.tokens}"],
                      self.train_words(self.tokens, **{"run.init_from": path})):  # fmt: skip
            with self.subTest(command=words[0]):
                self.refused(*words, says=says)
        for words in (["inspect", path], ["diff", path, self.base.checkpoint(4)]):
            with self.subTest(command=words[0]):
                result = switchyard(*words, timeout=4 * LIMIT_S)
                self.assertIn(result.returncode, (0, 1, 2), result.stderr)

    def all_commands_refuse_tokens(self, path, *says):
        for words in (["verify", path], ["inspect", path], ["diff", path, self.tokens], self.train_words(path),
                      ["eval", self.base.checkpoint(4), f"--data.tokens={path}"],
                      ["tokenize", self.write_text(), f"--tokenizer={path}", f"--output={self.folder / 'out.h5'}"]):  # fmt: skip
            with self.subTest(command=words[0]):
                self.refused(*words, says=says)

    def write_text(self):
        path = self.folder / "text.txt"
        path.write_text("ka lo mi\n\nten sur\n")
        return path

    def library(self, name, code):
        """Compiles a library for LD_PRELOAD."""
        source, library = self.folder / f"{name}.c", self.folder / f"{name}.so"
        source.write_text("#define _GNU_SOURCE\n" + code)
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
        return library

    def start(self, *words, preload):
        return switchyard(*words, env={**program.ENVIRONMENT, "LD_PRELOAD": str(preload)})


class Links(Crafted):
    def test_finding_18_checkpoints_hold_what_they_say(self):
        secret = self.copy(self.base.checkpoint(2), "secret.h5")
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        name = "/model/model.norm.weight"

        def link(to):
            def change(file):
                del file[name]
                file[name] = to
            return change

        def external(target):
            def change(file):
                values, attributes = file[name][:], dict(file[name].attrs)
                del file[name]
                file.create_dataset(name, values.shape, values.dtype, external=[(str(target), 0, h5py.h5f.UNLIMITED)])
                for key, value in attributes.items():
                    file[name].attrs[key] = value
            return change

        def virtual(file):
            layout = h5py.VirtualLayout(shape=file[name].shape, dtype=file[name].dtype)
            layout[:] = h5py.VirtualSource(str(pipe), "x", shape=file[name].shape)
            attributes = dict(file[name].attrs)
            del file[name]
            file.create_virtual_dataset(name, layout)
            for key, value in attributes.items():
                file[name].attrs[key] = value

        for case, change, says in (
            ("external link", link(h5py.ExternalLink(str(secret), name)), "is a link to elsewhere"),
            ("to a pipe", link(h5py.ExternalLink(str(pipe), name)), "is a link to elsewhere"),
            ("soft link", link(h5py.SoftLink("/model/model.embed_tokens.weight")), "is a link to elsewhere"),
            ("external storage", external(secret), "external storage"),
            ("storage in a pipe", external(pipe), "external storage"),
            ("virtual", virtual, "a virtual dataset"),
        ):
            with self.subTest(case=case):
                self.all_commands_refuse_checkpoint(self.crafted_checkpoint(change, sealed=False), says)

    def test_finding_18_token_files_hold_what_they_say(self):
        secret, pipe = self.copy(self.tokens, "secret.h5"), self.folder / "pipe"
        os.mkfifo(pipe)
        for name in ("/training/tokens", "/training/document_starts", "/tokenizer/model"):
            def replace(make):
                def change(file):
                    shape, dtype, attributes = file[name].shape, file[name].dtype, dict(file[name].attrs)
                    del file[name]
                    make(file, shape, dtype)
                    for key, value in attributes.items():
                        if isinstance(file.get(name, getlink=True), h5py.HardLink):
                            file[name].attrs[key] = value
                return change

            def link(to):
                return replace(lambda file, shape, dtype: file.__setitem__(name, to))

            def external(target):
                return replace(lambda file, shape, dtype: file.create_dataset(
                    name, shape, dtype, external=[(str(target), 0, h5py.h5f.UNLIMITED)]))

            def make_virtual(file, shape, dtype):
                layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
                layout[:] = h5py.VirtualSource(str(pipe), "x", shape=shape)
                file.create_virtual_dataset(name, layout)

            for case, change, says in (
                ("external link", link(h5py.ExternalLink(str(secret), name)), "is a link to elsewhere"),
                ("to a pipe", link(h5py.ExternalLink(str(pipe), "x")), "is a link to elsewhere"),
                ("soft link", link(h5py.SoftLink("/validation/tokens")), "is a link to elsewhere"),
                ("passwords", external("/etc/passwd"), "external storage"),
                ("storage in a pipe", external(pipe), "external storage"),
                ("virtual", replace(make_virtual), "a virtual dataset"),
            ):
                if name != "/training/tokens" and case != "to a pipe":
                    continue
                with self.subTest(case=case, name=name):
                    self.all_commands_refuse_tokens(self.crafted_tokens(change), says)
        whole = self.crafted_tokens(lambda file: (file.__setitem__("/training", h5py.SoftLink("/validation"))
                                                  if not file.__delitem__("/training") else None))  # fmt: skip
        self.all_commands_refuse_tokens(whole, "/training is a link to elsewhere")


class Numbers(Crafted):
    def test_finding_21_numbers_of_a_checkpoint_are_looked_at(self):
        for key, value, says in (
            ("step", np.int64(-1), "attribute step at / is -1"),
            ("step", np.int64(2**63 - 1), "attribute step at / is 9223372036854775807"),
            ("step", np.float64(4), "attribute step at / is not a whole number"),
            ("config", np.int64(4), "attribute config at / is not text"),
            ("dtype", np.float64(4), "attribute dtype at / is not text"),
            ("tokens_seen", np.int64(-5), "attribute tokens_seen at / is -5"),
        ):
            with self.subTest(key=key, value=value):
                path = self.crafted_checkpoint(lambda file: set_attribute(file, key, value))
                for words in (["eval", path], ["export", path, self.folder / "out"],
                              self.train_words(self.tokens, **{"run.init_from": path})):  # fmt: skip
                    self.refused(*words, says=[says, path.name])

    def test_finding_21_a_configuration_is_compared_with_the_names_before_anything_is_built(self):
        def change(file):
            text = file.attrs["config"].decode().replace("num_layers = 2", "num_layers = 4096")
            set_attribute(file, "config", np.bytes_(text))
        path = self.crafted_checkpoint(change)
        for words in (["eval", path], ["generate", path, "--prompt=ka"], ["export", path, self.folder / "out"],
                      self.train_words(self.tokens, **{"run.init_from": path})):  # fmt: skip
            with self.subTest(command=words[0]):
                self.refused(*words, says=["holds 2 layers", "4096 layers"])

    def test_finding_21_widths_of_a_configuration_are_compared_with_the_weights(self):
        for old, new, says in (("ffn_size = 37", "ffn_size = 4194304", ["gate_proj.weight of 37x24", "4194304x24"]),
                               ("num_kv_heads = 12", "num_kv_heads = 6", ["k_proj.weight of 24x24", "12x24"])):  # fmt: skip
            path = self.crafted_checkpoint(lambda file: set_attribute(
                file, "config", np.bytes_(file.attrs["config"].decode().replace(old, new))))  # fmt: skip
            for words in (["eval", path], self.train_words(self.tokens, **{"run.init_from": path})):
                with self.subTest(new, command=words[0]):
                    self.refused(*words, says=says)

    def test_finding_21_objects_are_counted(self):
        """Groups that share their children: 2^16 paths and more of a few objects."""
        def change(file):
            group = file.create_group("/data/a")
            for depth in range(14):
                inner = group.create_group("b0")
                for i in range(1, 4):
                    group[f"b{i}"] = inner
                group = inner
        self.all_commands_refuse_checkpoint(self.crafted_checkpoint(change, sealed=False), "has another name already")
        def loop(file):
            file["/data/root"] = file["/"]
        self.all_commands_refuse_checkpoint(self.crafted_checkpoint(loop, sealed=False), "crafted.h5")

    def test_finding_21_extents_are_covered_by_what_is_stored(self):
        def huge(rows, columns):
            def change(file):
                file.create_dataset("/model/huge", (rows, columns), "<f4", chunks=(1, 64))
            return change
        for rows, columns, says in ((2**40, 64, "its values need"), (2**40, 2**40, "more values than can be counted")):
            self.all_commands_refuse_checkpoint(self.crafted_checkpoint(huge(rows, columns), sealed=False), says)

    def test_finding_21_numbers_of_a_token_file_are_looked_at(self):
        for key, value, says in (
            ("vocab_size", np.int64(2**62), "attribute vocab_size is 4611686018427387904"),
            ("vocab_size", np.int64(2**31 - 1), "attribute vocab_size is 2147483647"),
            ("vocab_size", np.int64(0), "attribute vocab_size is 0"),
            ("vocab_size", np.int64(-300), "attribute vocab_size is -300"),
            ("end_token", np.int64(2**32 + 2), "attribute end_token is 4294967298"),
            ("end_token", np.int64(-1), "attribute end_token is -1"),
            ("end_token", np.float64(2), "attribute end_token is not a 64-bit integer"),
            ("fingerprint", np.bytes_("x"), "attribute fingerprint is not a 64-bit word"),
            ("format_version", np.bytes_("1"), "attribute format_version is not a 64-bit integer"),
        ):
            with self.subTest(key=key, value=value):
                path = self.crafted_tokens(lambda file: set_attribute(file, key, value))
                self.all_commands_refuse_tokens(path, says, path.name)

    def test_finding_21_tokens_that_were_never_stored_are_not_zeros(self):
        def change(extent):
            def change(file):
                file["/training/tokens"].resize((extent,))
            return change
        self.all_commands_refuse_tokens(self.crafted_tokens(change(2**40)), "its values need")
        size = pathlib.Path(self.tokens).stat().st_size
        path = self.crafted_tokens(change(size // 2))  # as many as would fit into the file
        self.refused("verify", path, says=["never written"])


class Crashes(Crafted):
    DEADLY = """
        #include <dlfcn.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <signal.h>
        #include <sys/resource.h>
        #include <unistd.h>
        typedef long hid_t;
        /* A limit of processor time that the program sets comes after a second. */
        int setrlimit(__rlimit_resource_t what, const struct rlimit *limit) {
            int (*real)(__rlimit_resource_t, const struct rlimit *) = dlsym(RTLD_NEXT, "setrlimit");
            struct rlimit soon = {1, 2};
            return real(what, what == RLIMIT_CPU && limit->rlim_cur >= 1 ? &soon : limit);
        }
        /* What a crafted structure does to HDF5, in whatever process reads it. */
        hid_t H5Fopen(const char *name, unsigned flags, hid_t access) {
            hid_t (*real)(const char *, unsigned, hid_t) = dlsym(RTLD_NEXT, "H5Fopen");
            if (strstr(name, "deadly")) raise(SIGSEGV);
            if (strstr(name, "endless")) for (;;);
            return real(name, flags, access);
        }"""

    def test_finding_20_a_structure_that_crashes_the_library_is_damage(self):
        library = self.library("deadly", self.DEADLY)
        for kind, says in (("deadly", "makes the HDF5 library crash"), ("endless", "has no end")):
            for source in (self.base.checkpoint(4), self.tokens):
                path = self.copy(source, f"{kind}.h5")
                commands = [["verify", path], ["inspect", path], ["diff", path, path]]
                if kind == "deadly":
                    commands += [["eval", path], ["export", path, self.folder / "out"], self.train_words(path),
                                 self.train_words(self.tokens, **{"run.init_from": path})]  # fmt: skip
                for words in commands:
                    with self.subTest(command=words[0], kind=kind, source=source.name):
                        self.refused(*words, says=[says, "damaged"], preload=library)

    def test_finding_20_a_run_falls_back(self):
        run = program.Run(self.folder / "run", self.tokens, **{"run.save_interval": 2})
        shutil.copytree(self.base.path, run.path)
        last, library = run.checkpoint(4), self.library("deadly", self.DEADLY.replace('"deadly"', '"step_00000004.h5"'))
        result = self.start("train", *program.arguments({**run.settings, "run.stop_step": 3}), preload=library)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("makes the HDF5 library crash", result.stderr)
        self.assertIn("resuming from step 2", result.stdout)
        self.assertTrue(last.with_name(last.name + ".damaged").exists())


class Systems(Crafted):
    def test_finding_08_flock_is_not_asked_for(self):
        """flock() fails with errno 37, as on NFS without locks."""
        library = self.library("flock", """
            #include <errno.h>
            int flock(int fd, int operation) { errno = ENOLCK; return -1; }""")
        for words in (["verify", self.tokens], ["verify", self.base.checkpoint(4)], ["inspect", self.tokens],
                      ["eval", self.base.checkpoint(4)], ["diff", self.tokens, self.tokens], self.train_words(self.tokens),
                      ["tokenize", self.write_text(), f"--tokenizer={self.tokens}", f"--output={self.folder / 'o.h5'}"]):  # fmt: skip
            for variable in (None, "TRUE", "BEST_EFFORT"):
                with self.subTest(command=words[0], variable=variable):
                    shutil.rmtree(self.folder / "new", ignore_errors=True)
                    (self.folder / "o.h5").unlink(missing_ok=True)
                    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
                    environment = {**program.ENVIRONMENT, "LD_PRELOAD": str(library),
                                   **({"HDF5_USE_FILE_LOCKING": variable} if variable else {})}  # fmt: skip
                    result = switchyard(*words, env=environment)
                    self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_finding_08_what_the_system_refuses_is_told_as_it_is(self):
        library = self.library("stale", """
            #include <dlfcn.h>
            #include <errno.h>
            #include <fcntl.h>
            #include <stdarg.h>
            #include <string.h>
            static int answer(const char *call, const char *path, int flags, int mode) {
                int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, call);
                if (strstr(path, "/stale") || strstr(path, "step_00000004.h5")) { errno = ESTALE; return -1; }
                return real(path, flags, mode);
            }
            #define MODE va_list words; va_start(words, flags); int mode = va_arg(words, int); va_end(words);
            int open(const char *path, int flags, ...) { MODE return answer("open", path, flags, mode); }
            int open64(const char *path, int flags, ...) { MODE return answer("open64", path, flags, mode); }""")
        for source in (self.base.checkpoint(4), self.tokens):
            path = self.copy(source, "stale.h5")
            for words in (["verify", path], self.train_words(path) if source == self.tokens else ["eval", path]):
                with self.subTest(command=words[0], source=source.name):
                    text = self.refused(*words, says=["Stale file handle"], preload=library)
                    for word in ("damaged", "truncated", "make it again"):
                        self.assertNotIn(word, text)
        run = program.Run(self.folder / "run", self.tokens)
        shutil.copytree(self.base.path, run.path)
        before = run.files()
        text = self.refused("train", *program.arguments({**run.settings, "run.stop_step": 5}), says=["Stale file handle"],
                            preload=library)  # fmt: skip
        self.assertEqual(run.files(), before, text)


class Others(Crafted):
    def test_a_repacked_checkpoint_is_called_so(self):
        path = self.folder / "repacked.h5"
        with h5py.File(self.base.checkpoint(4)) as source, h5py.File(path, "w", libver="latest") as target:
            def copy(name, item):
                if isinstance(item, h5py.Dataset):
                    made = target.create_dataset(name, data=item[:], compression="gzip", chunks=True)
                else:
                    made = target.require_group(name)
                for key, value in item.attrs.items():
                    made.attrs[key] = value
            source.visititems(copy)
            for key, value in source.attrs.items():
                target.attrs[key] = value
        text = self.refused("verify", path, says=["repacked", "h5repack -f NONE -l CONTI"])
        self.assertNotIn("damaged", text)
        run = program.Run(self.folder / "run", self.tokens)
        shutil.copytree(self.base.path, run.path)
        shutil.copy(path, run.checkpoint(4))
        before = run.files()
        self.refused("train", *program.arguments({**run.settings, "run.stop_step": 5}), says=["repacked"])
        self.assertEqual(run.files(), before)

    def test_finding_24_no_escape_of_a_file_reaches_the_terminal(self):
        escape = "\x1b[31m\x1b]0;title\x07 \u202e \x9b\x7f".encode()

        def change(file):
            set_attribute(file, "code_version", np.bytes_(escape))
            file["/data"].attrs["key \x1b[2J"] = np.bytes_(escape)
        path = self.crafted_checkpoint(change)
        for words in (["inspect", path], ["diff", path, self.base.checkpoint(4)], ["verify", path, self.folder / "\x1b[31m"]):
            result = switchyard(*words, text=False)
            for forbidden in (b"\x1b", b"\x07", b"\x7f", "\x9b".encode(), "\u202e".encode()):
                self.assertNotIn(forbidden, result.stdout + result.stderr, words)
        self.assertIn(rb"\x1b[31m", switchyard("inspect", path, text=False).stdout)

    def test_finding_24_a_sentencepiece_model_with_an_empty_piece(self):
        def varint(n):
            return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

        def message(number, text):
            return varint(number << 3 | 2) + varint(len(text)) + text

        def piece(text, kind):
            return message(1, message(1, text) + b"\x15" + struct.pack("<f", 0) + b"\x18" + varint(kind))

        model = self.folder / "empty.model"
        for kind in (1, 4):  # as text, and as a symbol of the user's, which goes into a trie
            model.write_bytes(piece(b"<unk>", 2) + piece(b"<s>", 3) + piece(b"</s>", 3) + piece(b"", kind) + piece(b"a", 1))
            text = self.refused("tokenize", self.write_text(), f"--tokenizer={model}", f"--output={self.folder / 'o.h5'}",
                                says=["SentencePiece model"])  # fmt: skip
            for internal in (".cc(", "LOG(ERROR)", "darts", "zero-length"):
                self.assertNotIn(internal, text)


if __name__ == "__main__":
    unittest.main()
