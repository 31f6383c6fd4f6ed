/* A libcuda.so.1 with a pretend device, for tests of host code on a machine without a GPU.
 *
 * Device memory is the heap and a copy is memmove. Work on a stream is lazy: it runs when something
 * waits for it, in the thread that waits, so that reading a result too early is always seen.
 * Memory is filled with 0xff, which is NaN, when it is handed out and when it is taken back.
 * What stands in `unsupported` answers CUDA_ERROR_NOT_SUPPORTED; there are no kernels.
 *
 * The pretend_* functions at the end set the device up, count what lives and make calls fail.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901
};
enum { DEVICE = 1, HOST = 2 };
enum { MAX_FAULTS = 8, MAX_DEPTH = 64 };

typedef int result;
typedef uintptr_t address;
typedef void (*function)(void *);

typedef struct block { struct block *next; char *start; size_t size; int kind; unsigned flags; } block;
typedef struct context { int references; } context;
typedef struct event { struct stream *stream; struct timespec time; int done, recorded; } event;
typedef struct work {
  struct work *next;
  enum { COPY, FILL, CALL, RECORD, WAIT, GRAPH } kind;
  void *target; const void *source; size_t size; int value;
  function call; event *event; struct graph *graph;
} work;
typedef struct list { work *first, *last; } list;
typedef struct graph { list nodes; } graph;
typedef struct stream { list queue; graph *capture; int invalid; } stream;

typedef struct counts {
  long device_blocks, device_bytes, host_blocks, host_bytes, allocations;
  long streams, events, graphs, executables, contexts, launches, copies, abandoned, bad_frees;
} counts;

static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER; /* blocks, queues and counts */
static pthread_mutex_t running;                           /* held while work runs */
static block *blocks;
static counts live;
static context primary;
static __thread context *stack[MAX_DEPTH];
static __thread int depth, capturing;
static int initialized;

static struct { long devices, major, minor, integrated, memory, driver, bus; char name[128]; } device =
  {1, 8, 7, 0, 1L << 30, 12060, 1, "Pretend GPU"};
static struct { char name[64]; long after; int code; } faults[MAX_FAULTS];

__attribute__((constructor)) static void start(void) {
  pthread_mutexattr_t recursive;
  pthread_mutexattr_init(&recursive);
  pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&running, &recursive);
}

static int fault(const char *name) {
  int code = OK;
  pthread_mutex_lock(&table);
  for (int i = 0; i < MAX_FAULTS && !code; i++)
    if (!strcmp(faults[i].name, name) && faults[i].after-- == 0) { code = faults[i].code; faults[i].name[0] = 0; }
  pthread_mutex_unlock(&table);
  return code;
}
static void count(long *counter, long change) {
  pthread_mutex_lock(&table); *counter += change; pthread_mutex_unlock(&table);
}
static context *current(void) { return depth ? stack[depth - 1] : 0; }

#define API(name, ...) __attribute__((visibility("default"))) result name(__VA_ARGS__)
#define FAULTS(name) do { int code = fault(name); if (code) return code; } while (0)
#define NEEDS_CONTEXT(name) do { FAULTS(name); if (!current()) return INVALID_CONTEXT; } while (0)

/* Errors, versions and the device. */

static const struct { int code; const char *name, *text; } errors[] = {
  {OK, "CUDA_SUCCESS", "no error"}, {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
  {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
  {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
  {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
  {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
  {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
  {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
  {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
  {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
  {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
  {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
   "operation failed due to a previous error during capture"}};

static result describe(int code, const char **text, int name) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (errors[i].code == code) { *text = name ? errors[i].name : errors[i].text; return OK; }
  *text = 0;
  return INVALID_VALUE;
}
API(cuGetErrorName, int code, const char **text) { return describe(code, text, 1); }
API(cuGetErrorString, int code, const char **text) { return describe(code, text, 0); }

API(cuInit, unsigned flags) {
  (void)flags; FAULTS("cuInit"); initialized = 1; return device.devices ? OK : NO_DEVICE;
}
API(cuDriverGetVersion, int *version) { FAULTS("cuDriverGetVersion"); *version = (int)device.driver; return OK; }
API(cuDeviceGetCount, int *number) {
  FAULTS("cuDeviceGetCount");
  if (!initialized) return NOT_INITIALIZED;
  *number = (int)device.devices;
  return OK;
}
API(cuDeviceGet, int *handle, int ordinal) {
  if (!initialized) return NOT_INITIALIZED;
  *handle = ordinal;
  return ordinal < 0 || ordinal >= device.devices ? INVALID_DEVICE : OK;
}
API(cuDeviceGetName, char *name, int size, int handle) { (void)handle; strncpy(name, device.name, size); return OK; }
API(cuDeviceGetPCIBusId, char *id, int size, int handle) {
  (void)handle; FAULTS("cuDeviceGetPCIBusId"); snprintf(id, size, "0000:%02lX:00.0", device.bus); return OK;
}
API(cuDeviceTotalMem_v2, size_t *bytes, int handle) { (void)handle; *bytes = device.memory; return OK; }
API(cuDeviceComputeCapability, int *major, int *minor, int handle) {
  (void)handle; *major = (int)device.major; *minor = (int)device.minor; return OK;
}
API(cuDeviceGetAttribute, int *value, int attribute, int handle) {
  (void)handle; FAULTS("cuDeviceGetAttribute");
  switch (attribute) {
    case 16: *value = 8; break;                        /* MULTIPROCESSOR_COUNT */
    case 18: *value = (int)device.integrated; break;   /* INTEGRATED */
    case 19: *value = 1; break;                        /* CAN_MAP_HOST_MEMORY */
    case 75: *value = (int)device.major; break;        /* COMPUTE_CAPABILITY_MAJOR */
    case 76: *value = (int)device.minor; break;        /* COMPUTE_CAPABILITY_MINOR */
    default: *value = 0;
  }
  return OK;
}

/* Contexts: the primary one, and a stack of each thread. */

API(cuDevicePrimaryCtxRetain, context **made, int handle) {
  (void)handle; FAULTS("cuDevicePrimaryCtxRetain"); count(&live.contexts, 1); primary.references++; *made = &primary;
  return OK;
}
API(cuDevicePrimaryCtxRelease_v2, int handle) {
  (void)handle;
  if (!primary.references) return INVALID_CONTEXT;
  primary.references--; count(&live.contexts, -1);
  return OK;
}
API(cuCtxPushCurrent_v2, context *pushed) {
  FAULTS("cuCtxPushCurrent");
  if (!pushed || depth == MAX_DEPTH) return INVALID_VALUE;
  stack[depth++] = pushed;
  return OK;
}
API(cuCtxPopCurrent_v2, context **popped) {
  if (!depth) return INVALID_CONTEXT;
  depth--;
  if (popped) *popped = stack[depth];
  return OK;
}
API(cuCtxSetCurrent, context *wanted) {
  if (depth) depth--;
  if (wanted) stack[depth++] = wanted;
  return OK;
}
API(cuCtxGetCurrent, context **found) { *found = current(); return OK; }
API(cuCtxGetDevice, int *handle) { *handle = 0; return current() ? OK : INVALID_CONTEXT; }
API(cuCtxGetApiVersion, context *of, unsigned *version) { (void)of; *version = 3020; return OK; }

/* Memory. */

static result allocate(void **made, size_t size, int kind, unsigned flags) {
  if (!size) return INVALID_VALUE;
  if (capturing) return CAPTURE_UNSUPPORTED;
  pthread_mutex_lock(&table);
  int full = kind == DEVICE && live.device_bytes + (long)size > device.memory;
  block *b = full ? 0 : malloc(sizeof *b);
  if (b) {
    *b = (block){blocks, aligned_alloc(512, (size + 511) / 512 * 512), size, kind, flags};
    memset(b->start, 0xff, size);
    blocks = b; *made = b->start;
    live.allocations++;
    *(kind == DEVICE ? &live.device_blocks : &live.host_blocks) += 1;
    *(kind == DEVICE ? &live.device_bytes : &live.host_bytes) += (long)size;
  }
  pthread_mutex_unlock(&table);
  return b ? OK : OUT_OF_MEMORY;
}
static result take_back(void *start, int kind) {
  result code = INVALID_VALUE;
  pthread_mutex_lock(&table);
  for (block **at = &blocks; *at; at = &(*at)->next) {
    block *b = *at;
    if (b->start != start || b->kind != kind) continue;
    *at = b->next;
    *(kind == DEVICE ? &live.device_blocks : &live.host_blocks) -= 1;
    *(kind == DEVICE ? &live.device_bytes : &live.host_bytes) -= (long)b->size;
    memset(b->start, 0xff, b->size);
    free(b->start); free(b);
    code = OK;
    break;
  }
  if (code) live.bad_frees++;
  pthread_mutex_unlock(&table);
  return code;
}
static int inside(const void *start, size_t size, int kinds) {
  int found = 0;
  pthread_mutex_lock(&table);
  for (block *b = blocks; b && !found; b = b->next)
    found = (b->kind & kinds) && (char *)start >= b->start && (char *)start + size <= b->start + b->size;
  pthread_mutex_unlock(&table);
  return found;
}
API(cuMemAlloc_v2, address *made, size_t size) {
  NEEDS_CONTEXT("cuMemAlloc"); return allocate((void **)made, size, DEVICE, 0);
}
API(cuMemFree_v2, address start) { NEEDS_CONTEXT("cuMemFree"); return take_back((void *)start, DEVICE); }
API(cuMemHostAlloc, void **made, size_t size, unsigned flags) {
  NEEDS_CONTEXT("cuMemHostAlloc"); return allocate(made, size, HOST, flags);
}
API(cuMemFreeHost, void *start) { NEEDS_CONTEXT("cuMemFreeHost"); return take_back(start, HOST); }
API(cuMemHostGetDevicePointer_v2, address *made, void *start, unsigned flags) {
  (void)flags;
  *made = (address)start;
  for (block *b = blocks; b; b = b->next)
    if (b->start == start) return b->flags & 2 ? OK : INVALID_VALUE; /* CU_MEMHOSTALLOC_DEVICEMAP */
  return INVALID_VALUE;
}
API(cuMemGetInfo_v2, size_t *unused, size_t *total) {
  NEEDS_CONTEXT("cuMemGetInfo"); *total = device.memory; *unused = device.memory - live.device_bytes; return OK;
}

/* Streams: lists of work that run when they are waited for. */

static void append(list *to, const work *what) {
  work *copy = malloc(sizeof *copy);
  *copy = *what; copy->next = 0;
  if (to->last) to->last->next = copy; else to->first = copy;
  to->last = copy;
}
static work *take(list *from) {
  pthread_mutex_lock(&table);
  work *w = from->first;
  if (w && !(from->first = w->next)) from->last = 0;
  pthread_mutex_unlock(&table);
  return w;
}
static void drain(stream *s, event *until);
static void run(work *w) {
  switch (w->kind) {
    case COPY: memmove(w->target, w->source, w->size); count(&live.copies, 1); break;
    case FILL: memset(w->target, w->value, w->size); break;
    case CALL: w->call(w->target); break;
    case RECORD: clock_gettime(CLOCK_MONOTONIC, &w->event->time); w->event->done = 1; break;
    case WAIT: if (w->event->stream) drain(w->event->stream, w->event); break;
    case GRAPH: for (work *n = w->graph->nodes.first; n; n = n->next) run(n); count(&live.launches, 1);
  }
}
/* Runs what is queued on a stream, all of it or until an event is recorded. */
static void drain(stream *s, event *until) {
  pthread_mutex_lock(&running);
  work *w;
  while (!(until && until->done) && (w = take(&s->queue))) { run(w); free(w); }
  pthread_mutex_unlock(&running);
}
static result enqueue(stream *s, work what) {
  if (!s) return INVALID_HANDLE;
  if (s->invalid) return CAPTURE_INVALIDATED;
  pthread_mutex_lock(&table);
  append(s->capture ? &s->capture->nodes : &s->queue, &what);
  pthread_mutex_unlock(&table);
  return OK;
}
API(cuStreamCreate, stream **made, unsigned flags) {
  (void)flags; NEEDS_CONTEXT("cuStreamCreate"); *made = calloc(1, sizeof **made); count(&live.streams, 1); return OK;
}
API(cuStreamDestroy_v2, stream *s) {
  NEEDS_CONTEXT("cuStreamDestroy");
  for (work *w; (w = take(&s->queue)); free(w)) count(&live.abandoned, 1);
  free(s); count(&live.streams, -1);
  return OK;
}
API(cuStreamSynchronize, stream *s) {
  NEEDS_CONTEXT("cuStreamSynchronize");
  if (s->capture) { s->invalid = 1; return CAPTURE_UNSUPPORTED; }
  drain(s, 0);
  return OK;
}
API(cuStreamQuery, stream *s) { NEEDS_CONTEXT("cuStreamQuery"); return s->queue.first ? NOT_READY : OK; }
API(cuStreamWaitEvent, stream *s, event *e, unsigned flags) {
  (void)flags; NEEDS_CONTEXT("cuStreamWaitEvent"); return enqueue(s, (work){.kind = WAIT, .event = e});
}
API(cuLaunchHostFunc, stream *s, function call, void *argument) {
  NEEDS_CONTEXT("cuLaunchHostFunc"); return enqueue(s, (work){.kind = CALL, .call = call, .target = argument});
}
static result copy(stream *s, void *target, int to, const void *source, int from, size_t size) {
  if (!inside(target, size, to) || !inside(source, size, from)) return INVALID_VALUE;
  return enqueue(s, (work){.kind = COPY, .target = target, .source = source, .size = size});
}
API(cuMemcpyHtoDAsync_v2, address target, const void *source, size_t size, stream *s) {
  NEEDS_CONTEXT("cuMemcpyHtoDAsync"); return copy(s, (void *)target, DEVICE, source, HOST, size);
}
API(cuMemcpyDtoHAsync_v2, void *target, address source, size_t size, stream *s) {
  NEEDS_CONTEXT("cuMemcpyDtoHAsync"); return copy(s, target, HOST, (void *)source, DEVICE, size);
}
API(cuMemcpyHtoD_v2, address target, const void *source, size_t size) {
  NEEDS_CONTEXT("cuMemcpyHtoD");
  if (!inside((void *)target, size, DEVICE)) return INVALID_VALUE;
  memmove((void *)target, source, size);
  return OK;
}
API(cuMemcpyDtoH_v2, void *target, address source, size_t size) {
  NEEDS_CONTEXT("cuMemcpyDtoH");
  if (!inside((void *)source, size, DEVICE)) return INVALID_VALUE;
  memmove(target, (void *)source, size);
  return OK;
}

/* Events: on the host's clock, when the stream comes to them. */

API(cuEventCreate, event **made, unsigned flags) {
  (void)flags; NEEDS_CONTEXT("cuEventCreate"); *made = calloc(1, sizeof **made); count(&live.events, 1); return OK;
}
API(cuEventDestroy_v2, event *e) { NEEDS_CONTEXT("cuEventDestroy"); free(e); count(&live.events, -1); return OK; }
API(cuEventRecord, event *e, stream *s) {
  NEEDS_CONTEXT("cuEventRecord");
  e->stream = s; e->recorded = 1; e->done = 0;
  return enqueue(s, (work){.kind = RECORD, .event = e});
}
API(cuEventQuery, event *e) { NEEDS_CONTEXT("cuEventQuery"); return !e->recorded || e->done ? OK : NOT_READY; }
API(cuEventSynchronize, event *e) {
  NEEDS_CONTEXT("cuEventSynchronize");
  if (e->recorded && !e->done) drain(e->stream, e);
  return OK;
}
API(cuEventElapsedTime_v2, float *ms, event *from, event *to) {
  if (!from->recorded || !to->recorded) return INVALID_HANDLE;
  if (!from->done || !to->done) return NOT_READY;
  *ms = (float)((to->time.tv_sec - from->time.tv_sec) * 1e3 + (to->time.tv_nsec - from->time.tv_nsec) / 1e6);
  return OK;
}
API(cuEventElapsedTime, float *ms, event *from, event *to) { return cuEventElapsedTime_v2(ms, from, to); }

/* Graphs: the work that was put on a stream while it captured. */

API(cuStreamBeginCapture_v2, stream *s, int mode) {
  (void)mode; NEEDS_CONTEXT("cuStreamBeginCapture");
  if (s->capture) return CAPTURE_UNSUPPORTED;
  s->capture = calloc(1, sizeof *s->capture); capturing++; count(&live.graphs, 1);
  return OK;
}
static void drop(graph *g, long *counter) {
  for (work *w = g->nodes.first, *next; w; w = next) { next = w->next; free(w); }
  free(g); count(counter, -1);
}
API(cuStreamEndCapture, stream *s, graph **made) {
  if (!s->capture) return INVALID_VALUE;
  int code = fault("cuStreamEndCapture"), invalid = s->invalid;
  *made = s->capture; s->capture = 0; s->invalid = 0; capturing--;
  if (invalid || code) { drop(*made, &live.graphs); *made = 0; }
  return code ? code : invalid ? CAPTURE_INVALIDATED : OK;
}
API(cuStreamIsCapturing, stream *s, int *status) { *status = s->invalid ? 2 : s->capture != 0; return OK; }
API(cuGraphInstantiateWithFlags, graph **made, graph *from, unsigned long long flags) {
  (void)flags; NEEDS_CONTEXT("cuGraphInstantiateWithFlags");
  *made = calloc(1, sizeof **made); count(&live.executables, 1);
  for (work *w = from->nodes.first; w; w = w->next) append(&(*made)->nodes, w);
  return OK;
}
API(cuGraphLaunch, graph *g, stream *s) {
  NEEDS_CONTEXT("cuGraphLaunch"); return enqueue(s, (work){.kind = GRAPH, .graph = g});
}
API(cuGraphDestroy, graph *g) { drop(g, &live.graphs); return OK; }
API(cuGraphExecDestroy, graph *g) { drop(g, &live.executables); return OK; }
API(cuCtxSynchronize, void) { return NOT_SUPPORTED; }

/* What pycuda links to besides. */

#define UNSUPPORTED(name) __attribute__((visibility("default"))) result name(void) { return NOT_SUPPORTED; }
#include "unsupported.h"

/* For the tests. */

__attribute__((visibility("default"))) void pretend_counts(counts *found) {
  pthread_mutex_lock(&table); *found = live; pthread_mutex_unlock(&table);
}
/* Sets the device: how many there are, its capability, whether it shares the host's memory, bytes, driver. */
__attribute__((visibility("default"))) void pretend_device(
    const char *name, long devices, long capability, long integrated, long memory, long driver, long bus) {
  memset(device.name, 0, sizeof device.name);
  strncpy(device.name, name, sizeof device.name - 1);
  device.devices = devices; device.major = capability / 10; device.minor = capability % 10;
  device.integrated = integrated; device.memory = memory; device.driver = driver; device.bus = bus;
}
/* Makes the call of that name fail once, after it has worked `after` times; returns 0 where no place is left. */
__attribute__((visibility("default"))) int pretend_fault(const char *name, long after, int code) {
  for (int i = 0; i < MAX_FAULTS; i++)
    if (!faults[i].name[0]) {
      strncpy(faults[i].name, name, sizeof faults[i].name - 1);
      faults[i].after = after; faults[i].code = code;
      return 1;
    }
  return 0;
}
__attribute__((visibility("default"))) void pretend_no_faults(void) { memset(faults, 0, sizeof faults); }
/* Depth of the calling thread's context stack. */
__attribute__((visibility("default"))) int pretend_depth(void) { return depth; }
