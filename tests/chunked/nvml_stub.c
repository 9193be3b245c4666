/* A libnvidia-ml.so.1 that lists two GPUs of 1 GiB, each next to one core. It computes nothing: it is for testing which
   worker gets which GPU, cores and limits. */
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, COUNT = 2 };
static const unsigned long long MEMORY = 1ULL << 30;

typedef struct {
    unsigned long long total, free, used;
} Memory;

/* A handle is the index plus one, so that none is null. */
static unsigned index_of(void *device) { return (unsigned)((size_t)device - 1); }

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int result) { return "error of the stub"; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "999.99");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = COUNT;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(size_t)(index + 1);
    return index < COUNT ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    unsigned index;
    if (sscanf(uuid, "GPU-stub%u", &index) != 1) return NOT_FOUND;
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    snprintf(text, size, "GPU-stub%u", index_of(device));
    return SUCCESS;
}

int nvmlDeviceGetIndex(void *device, unsigned *index) {
    *index = index_of(device);
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    snprintf(text, size, "Stub GPU");
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    memory->total = memory->free = MEMORY;
    memory->used = 0;
    return SUCCESS;
}

int nvmlDeviceGetCpuAffinity(void *device, unsigned words, unsigned long *mask) {
    memset(mask, 0, words * sizeof *mask);
    mask[0] = 1UL << index_of(device);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) { return NOT_SUPPORTED; }

int nvmlDeviceIsMigDeviceHandle(void *device, unsigned *is_slice) {
    *is_slice = 0;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
    rates[0] = rates[1] = 0;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *processes) {
    *count = 0;
    return SUCCESS;
}
