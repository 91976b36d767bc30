// Work sharing: tasks of unequal length are handed out one by one.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#if !defined(_OPENMP)
#include <thread>
#include <vector>
#endif

// Calls worker(take) on each thread; take() gives the next task number, or -1 when none is left.
// OpenMP is preferred because it shares torch's pool of threads.
template <class Worker>
static void share(int64_t tasks, int threads, Worker worker) {
  std::atomic<int64_t> next{0};
  auto take = [&]() -> int64_t {
    int64_t task = next.fetch_add(1, std::memory_order_relaxed);
    return task < tasks ? task : -1;
  };
  if (threads > tasks) threads = (int)tasks;
  if (threads <= 1) {
    worker(take);
    return;
  }
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
  worker(take);
#else
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; i++) helpers.emplace_back([&] { worker(take); });
  worker(take);
  for (auto& helper : helpers) helper.join();
#endif
}
