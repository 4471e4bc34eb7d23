// What to do when a system call on a file has failed.
#include "core/error.hpp"

namespace switchyard {

std::string_view system_advice(int error) {
    switch (error) {
        case ENOSPC:
        case EDQUOT:
            return "free space or raise the quota there, or choose another place";
        case EFBIG:
            return "raise the limit of file sizes (ulimit -f)";
        case EMFILE:
        case ENFILE:
            return "raise the limit of open files (ulimit -n)";
        case ENOENT:
        case ENOTDIR:
        case EISDIR:
        case ELOOP:
        case ENAMETOOLONG:
            return "check the path";
        case EACCES:
        case EPERM:
        case EROFS:
            return "check the permissions of the file and of its folder, or choose another place";
        default:
            return "check that its file system works, then try again";
    }
}

std::string_view without_advice(std::string_view message) {
    return message.substr(0, message.find("; "));
}

}  // namespace switchyard
