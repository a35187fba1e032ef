#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace longspan {
namespace {

float* scratch_of(size_t floats) {
    thread_local std::unique_ptr<float[]> memory;
    thread_local size_t size = 0;
    if (size < floats) {
        memory.reset();
        size = 0;
        memory.reset(new float[floats]);
        size = floats;
    }
    return memory.get();
}

class Pool {
public:
    void run(int threads, int64_t tasks, size_t floats, const std::function<void(int64_t, float*)>& task) {
        std::unique_lock<std::mutex> mine(callers_, std::try_to_lock);
        const int helpers = static_cast<int>(std::min<int64_t>(threads, tasks)) - 1;
        if (helpers < 1 || !mine.owns_lock()) {
            float* scratch = scratch_of(floats);
            for (int64_t i = 0; i < tasks; i++) task(i, scratch);
            return;
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (static_cast<int>(workers_.size()) < helpers) workers_.emplace_back([this] { work(); });
            task_ = &task;
            floats_ = floats;
            tasks_ = tasks;
            batch_ = std::max<int64_t>(1, tasks / (4 * (helpers + 1)));
            next_.store(0, std::memory_order_relaxed);
            wanted_ = helpers;
            failure_ = nullptr;
        }
        for (int i = 0; i < helpers; i++) wake_.notify_one();
        take();
        std::unique_lock<std::mutex> lock(mutex_);
        wanted_ = 0;  // who has not woken by now need not
        done_.wait(lock, [this] { return active_ == 0; });
        if (failure_) std::rethrow_exception(failure_);
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

private:
    void take() {
        try {
            float* scratch = scratch_of(floats_);
            for (int64_t i; (i = next_.fetch_add(batch_, std::memory_order_relaxed)) < tasks_;)
                for (int64_t end = std::min(i + batch_, tasks_); i < end; i++) (*task_)(i, scratch);
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex_);
            failure_ = std::current_exception();
            next_.store(tasks_, std::memory_order_relaxed);
        }
    }

    void work() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return stop_ || wanted_ > 0; });
            if (stop_) return;
            wanted_--;
            active_++;
            lock.unlock();
            take();
            lock.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }

    std::mutex callers_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    const std::function<void(int64_t, float*)>* task_ = nullptr;
    size_t floats_ = 0;
    int64_t tasks_ = 0, batch_ = 1;  // neighbours go to one thread, which fetches ahead
    std::atomic<int64_t> next_{0};
    int wanted_ = 0, active_ = 0;
    bool stop_ = false;
    std::exception_ptr failure_;
};

Pool* made = nullptr;

Pool& pool() {
    static std::once_flag once;
    std::call_once(once, [] {
        made = new Pool;  // never ended: threads must not be joined while the process unloads
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, [] { made = new Pool; });  // a fork has none of its parent's threads
#endif
    });
    return *made;
}

}  // namespace

void parallel(int threads, int64_t tasks, size_t floats, const std::function<void(int64_t, float*)>& task) {
    if (tasks > 0) pool().run(threads, tasks, floats, task);
}

}  // namespace longspan
