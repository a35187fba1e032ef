#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
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

using Clock = std::chrono::steady_clock;
constexpr auto NEAR = std::chrono::microseconds(100);   // calls that follow each other this closely are waited for
constexpr auto CLOSE = std::chrono::microseconds(20);   // of that, without offering the core to others
constexpr int LOOKS = 32;                               // between two looks at the clock

void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Whether `ready` came true within NEAR.
template <class Ready>
bool soon(const Ready& ready) {
    const Clock::time_point begin = Clock::now();
    for (;;) {
        for (int i = 0; i < LOOKS; i++) {
            if (ready()) return true;
            relax();
        }
        const auto waited = Clock::now() - begin;
        if (waited > NEAR) return false;
        if (waited > CLOSE) std::this_thread::yield();
    }
}

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
        while (static_cast<int>(workers_.size()) < helpers) workers_.emplace_back([this] { work(); });
        task_ = &task;
        floats_ = floats;
        tasks_ = tasks;
        threads_ = helpers + 1;
        next_.store(0, std::memory_order_relaxed);
        near_ = Clock::now() - ended_ < NEAR;
        failure_ = nullptr;
        state_.store(helpers * WANTED);
        const int asleep = asleep_.load();
        if (asleep) {
            { std::lock_guard<std::mutex> lock(mutex_); }  // who is about to sleep sleeps now, and can be woken
            const int awake = static_cast<int>(workers_.size()) - asleep;
            for (int i = awake; i < helpers; i++) wake_.notify_one();
        }
        take();
        state_.fetch_and(WANTED - 1);  // who has not come by now need not
        auto done = [this] { return state_.load() == 0; };
        if (!soon(done)) {
            std::unique_lock<std::mutex> lock(mutex_);
            waiting_.store(true);
            done_.wait(lock, done);
            waiting_.store(false);
        }
        ended_ = Clock::now();
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
    static constexpr uint64_t WANTED = uint64_t{1} << 32;

    void take() {
        try {
            float* scratch = scratch_of(floats_);
            for (;;) {
                const int64_t left = tasks_ - next_.load(std::memory_order_relaxed);
                const int64_t batch = std::max<int64_t>(1, 2 * left / (3 * threads_));
                int64_t i = next_.fetch_add(batch, std::memory_order_relaxed);
                if (i >= tasks_) break;
                for (const int64_t end = std::min(i + batch, tasks_); i < end; i++) (*task_)(i, scratch);
            }
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex_);
            failure_ = std::current_exception();
            next_.store(tasks_, std::memory_order_relaxed);
        }
    }

    // One of the threads that are wanted becomes an active one: this.
    bool join() {
        uint64_t state = state_.load();
        while (state >= WANTED)
            if (state_.compare_exchange_weak(state, state - WANTED + 1)) return true;
        return false;
    }

    void work() {
        bool near = false;
        for (;;) {
            if (!(near ? soon([this] { return join(); }) : join())) {
                std::unique_lock<std::mutex> lock(mutex_);
                asleep_++;
                wake_.wait(lock, [this] { return stop_ || state_.load() >= WANTED; });
                asleep_--;
                if (stop_) return;
                near = false;
                continue;
            }
            take();
            near = near_;
            if (--state_ == 0 && waiting_.load()) {
                { std::lock_guard<std::mutex> lock(mutex_); }
                done_.notify_one();
            }
        }
    }

    std::mutex callers_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    const std::function<void(int64_t, float*)>* task_ = nullptr;
    size_t floats_ = 0;
    int64_t tasks_ = 0, threads_ = 1;  // neighbours go to one thread, which fetches ahead; the last ones alone
    std::atomic<int64_t> next_{0};
    std::atomic<uint64_t> state_{0};  // threads that are wanted, in units of WANTED, and those that are active
    std::atomic<int> asleep_{0};
    std::atomic<bool> waiting_{false};  // whether the caller sleeps
    Clock::time_point ended_{};         // the last call
    bool near_ = false;                 // whether the call followed another closely
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
