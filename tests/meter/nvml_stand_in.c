/* A stand-in for NVIDIA's library of management, for machines without a GPU: what the real nvidia-ml-py asks of it is
 * answered out of files in the folder that STAND_IN_NVML names, which a test writes. A file that is not there means "not
 * supported", an empty one "the GPU is lost". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, GPU_IS_LOST = 15, INSUFFICIENT_SIZE = 7 };

static int number(int gpu, const char *what, unsigned long long *value)
{
    char path[4096], text[64];
    snprintf(path, sizeof path, "%s/gpu%d.%s", getenv("STAND_IN_NVML"), gpu, what);
    FILE *file = fopen(path, "r");
    if (!file)
        return NOT_SUPPORTED;
    char *line = fgets(text, sizeof text, file);
    fclose(file);
    if (!line)
        return GPU_IS_LOST;
    *value = strtoull(text, NULL, 10);
    return OK;
}

static int gpu_of(void *handle) { return (int)(long)handle - 1; }

static int narrow(void *handle, const char *what, unsigned int *value)
{
    unsigned long long wide = 0;
    int status = number(gpu_of(handle), what, &wide);
    *value = (unsigned int)wide;
    return status;
}

int nvmlInit_v2(void) { return getenv("STAND_IN_NVML") ? OK : 9; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "stand-in error"; }

int nvmlSystemGetDriverVersion(char *text, unsigned int size)
{
    snprintf(text, size, "stand-in 1.0");
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    unsigned long long ignored;
    for (*count = 0; number((int)*count, "name", &ignored) != NOT_SUPPORTED; ++*count)
        ;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle)
{
    *handle = (void *)(long)(index + 1);
    return OK;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned int size)
{
    snprintf(text, size, "stand-in GPU %d", gpu_of(handle));
    return OK;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned int size)
{
    snprintf(text, size, "GPU-%d", gpu_of(handle));
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy_mj)
{
    return number(gpu_of(handle), "energy_mj", energy_mj);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned int *power_mw) { return narrow(handle, "power_mw", power_mw); }

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned int *limit_mw) { return narrow(handle, "limit_mw", limit_mw); }

int nvmlDeviceGetTemperature(void *handle, unsigned int sensor, unsigned int *degrees)
{
    (void)sensor;
    return narrow(handle, "temperature_c", degrees);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons)
{
    return number(gpu_of(handle), "throttle_reasons", reasons);
}

int nvmlDeviceGetClockInfo(void *handle, unsigned int type, unsigned int *mhz)
{
    (void)type;
    return narrow(handle, "clock_mhz", mhz);
}

typedef struct {
    unsigned int pid;
    unsigned long long used_memory;
    unsigned int gpu_instance, compute_instance;
} process_info;

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, process_info *found)
{
    unsigned long long pid = 0;
    int there = number(gpu_of(handle), "pid", &pid) == OK;
    unsigned int room = *count;
    *count = there ? 1 : 0;
    if (!there)
        return OK;
    if (room < 1)
        return INSUFFICIENT_SIZE;
    memset(found, 0, sizeof *found);
    found->pid = (unsigned int)pid;
    return OK;
}
