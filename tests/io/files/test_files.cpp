// Only regular files of bounded size are read, and opened without waiting; files are never created through a
// link.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>

#include "io/files/files.hpp"
#include "support/temporary_directory.hpp"

namespace switchyard {
namespace {

using test::message_of;
using test::TemporaryDirectory;

std::string read_error(const std::string& path, std::uint64_t max_bytes = most_bytes_read) {
    return message_of<UserError>([&] { read_file(path, max_bytes); });
}

TEST(Files, test_finding_23_only_regular_files_are_read_and_nothing_is_waited_for) {
    const TemporaryDirectory folder;
    const std::string pipe = folder.file("pipe"), socket_path = folder.file("socket");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    EXPECT_CONTAINS(read_error(pipe), "is not a regular file but a pipe");
    EXPECT_CONTAINS(read_error("/dev/zero"), "is not a regular file but a device");
    EXPECT_CONTAINS(read_error("/dev/tty"), "/dev/tty");
    EXPECT_CONTAINS(read_error(folder.path()), "is not a regular file but a folder");
    const FileDescriptor listener(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_path.c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_CONTAINS(read_error(socket_path), "is not a regular file");
    EXPECT_EQ(read_file(folder.write("file", "text")), "text");
    EXPECT_FALSE(read_file("/proc/self/status").empty());  // a regular file whose size is not known
}

TEST(Files, test_finding_23_what_is_read_is_bounded) {
    const TemporaryDirectory folder;
    const std::string path = folder.write("file", std::string(1000, 'x'));
    EXPECT_EQ(read_file(path, 1000).size(), 1000u);
    EXPECT_CONTAINS(read_error(path, 999), "has more than 999 bytes");
    std::filesystem::resize_file(path, std::uintmax_t{1} << 40);
    EXPECT_CONTAINS(read_error(path), "has more than 100000000 bytes");
}

TEST(Files, APipeIsReadToItsEndAndAnErrorIsToldApart) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    FileDescriptor reading(ends[0]), writing(ends[1]);
    const std::string sent(60000, 'x');  // a pipe holds 64 KiB
    write_all(writing, sent, "pipe");
    writing.close();
    std::string text = "before";
    EXPECT_EQ(read_to_end(reading, text, most_bytes_read), "");
    EXPECT_EQ(text, "before" + sent);
    reading.close();
    EXPECT_EQ(read_to_end(reading, text, most_bytes_read), "Bad file descriptor");
}

TEST(Files, WhatTheSystemRefusesIsToldApart) {
    const TemporaryDirectory folder;
    EXPECT_CONTAINS(message_of<UnreadableError>([&] { open_regular(folder.file("none")); }), "No such file");
    EXPECT_EQ(message_of<UnreadableError>([&] {
                  try {
                      open_regular(folder.path());
                  } catch (const UnreadableError&) {
                      throw;
                  } catch (const UserError&) {
                  }
              }),
              "");
}

TEST(Files, test_finding_22_links_in_the_way_are_removed_not_followed) {
    const TemporaryDirectory folder;
    const std::string other = folder.write("other", "not to be lost"), path = folder.file("name");
    const auto create = [&] { write_all(create_anew(path), "new", path); };
    std::filesystem::create_symlink(other, path);
    create();
    EXPECT_EQ(folder.read("name"), "new");
    EXPECT_FALSE(std::filesystem::is_symlink(path));
    std::filesystem::remove(path);
    std::filesystem::create_hard_link(other, path);
    create();
    std::filesystem::remove(path);
    std::filesystem::create_symlink(folder.file("not there"), path);
    create();
    EXPECT_FALSE(folder.has("not there"));
    std::filesystem::create_symlink(other, folder.file("file.partial"));
    write_file(folder.file("file"), "new");
    EXPECT_EQ(folder.read("file"), "new");
    EXPECT_EQ(folder.read("other"), "not to be lost");
    ASSERT_EQ(::mkfifo(folder.file("pipe.partial").c_str(), 0600), 0);
    write_file(folder.file("pipe"), "new");  // does not wait for a reader
    EXPECT_EQ(folder.read("pipe"), "new");
}

TEST(Files, AFileThatIsHeldIsNotMadeAnew) {
    const TemporaryDirectory folder;
    const std::string path = folder.write("name", "of a process that was killed");
    {
        const FileDescriptor held = create_held(path);
        EXPECT_EQ(folder.read("name"), "");
        EXPECT_CONTAINS(message_of<UserError>([&] { create_held(path); }), "written by another process");
        const FileIdentity made = identity_of(held);
        EXPECT_TRUE(is_still_at(path, made));
        const FileDescriptor other = create_anew(path);
        EXPECT_FALSE(is_still_at(path, made));
        std::filesystem::remove(path);
        EXPECT_FALSE(is_still_at(path, made));
    }
    create_held(path);
    const std::string other = folder.write("other", "not to be lost");
    std::filesystem::remove(path);
    std::filesystem::create_symlink(other, path);
    create_held(path);
    EXPECT_EQ(folder.read("other"), "not to be lost");
}

}  // namespace
}  // namespace switchyard
