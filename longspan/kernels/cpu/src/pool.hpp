// Threads of our own that sleep between calls, so that they do not fight those of torch.
#pragma once

#include <cstdint>
#include <functional>

namespace longspan {

// Call task(i, scratch) for all i below `tasks`, on at most `threads` threads, the caller's among them. scratch: at
// least `floats` floats of the thread's own. While another thread uses the pool, the caller works alone.
void parallel(int threads, int64_t tasks, size_t floats, const std::function<void(int64_t, float*)>& task);

}  // namespace longspan
