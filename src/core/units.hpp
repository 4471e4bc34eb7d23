// Bytes, counts and durations as text for people.
#pragma once

#include <string>

namespace switchyard {

/// "1.23 GiB", "45.6 MiB", "789 B"
std::string bytes_text(double bytes);
/// "12.3 M", "1.34 G"
std::string count_text(double count);
/// "1:02:03", "4:05", "12 s"
std::string duration_text(double seconds);

}  // namespace switchyard
