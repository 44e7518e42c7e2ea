/* What a disk and a clock can do to a process, preloaded into it (LD_PRELOAD). Each part sleeps until its variable is set.
 *
 * FAULT_CLOCK=FILE     8 bytes, mapped: nanoseconds added to CLOCK_REALTIME; the monotonic clock is left alone.
 * FAULT_SYNC=FILE      while the file exists, fsync and fdatasync below FAULT_FOLDER fail.
 * FAULT_WRITE=FILE     while the file exists, writes below FAULT_FOLDER fail. Both files say `ERRNO PREFIX`: with which
 *                      error, and which paths, relative to FAULT_FOLDER.
 * FAULT_SURVIVES=DIR   what a power cut would leave of FAULT_FOLDER: each file as its last fsync saw it, each folder
 *                      with the names its last fsync saw (in `.names`). Nothing unsynced survives: the strictest disk.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *folder, *sync_switch, *write_switch, *survives;
static volatile long long *offset_ns;
static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_fsync)(int), (*real_fdatasync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *clock_file = getenv("FAULT_CLOCK");
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    folder = getenv("FAULT_FOLDER");
    sync_switch = getenv("FAULT_SYNC");
    write_switch = getenv("FAULT_WRITE");
    survives = getenv("FAULT_SURVIVES");
    if (clock_file) {
        int file = open(clock_file, O_RDONLY | O_CLOEXEC);
        void *at = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
        if (at != MAP_FAILED) offset_ns = at;
        if (file >= 0) close(file);
    }
}

/* -- clock: Python, SQLite, nginx and mosquitto ask through one of these three ------------------------------------- */

int clock_gettime(clockid_t which, struct timespec *now) {
    int code = real_clock(which, now);
    if (code == 0 && offset_ns && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        long long all = now->tv_sec * 1000000000LL + now->tv_nsec + *offset_ns;
        now->tv_sec = all / 1000000000LL;
        now->tv_nsec = all % 1000000000LL;
    }
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into) *into = exact.tv_sec;
    return exact.tv_sec;
}

/* -- disk ---------------------------------------------------------------------------------------------------------- */

/* Path of a descriptor relative to FAULT_FOLDER ("" for the folder itself), or NULL when it is not in there. */
static const char *inside(int file, char path[PATH_MAX]) {
    char link[64];
    size_t length = folder ? strlen(folder) : 0;
    if (!length) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t got = readlink(link, path, PATH_MAX - 1);
    if (got < 0) return NULL;
    path[got] = 0;
    if (strncmp(path, folder, length) || (path[length] && path[length] != '/')) return NULL;
    return path[length] ? path + length + 1 : path + length;
}

/* Tell whether the switch is on for this path, and set errno to what it says. */
static int fails(const char *control, const char *relative) {
    char prefix[256] = "";
    int code = 0;
    FILE *said = control && access(control, F_OK) == 0 ? fopen(control, "re") : NULL;
    if (!said) return 0;
    int got = fscanf(said, "%d %255s", &code, prefix);
    fclose(said);
    if (got < 1 || strncmp(relative, prefix, strlen(prefix))) return 0;
    errno = code;
    return 1;
}

static void make_parents(char *path) {
    for (char *at = path + strlen(survives) + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
}

/* Write all of `content` to a new file and put it in place in one step: other processes copy too. */
static void put(char *path, const char *content, size_t size) {
    char fresh[PATH_MAX + 32];
    make_parents(path);
    snprintf(fresh, sizeof fresh, "%s.%d.new", path, getpid());
    int file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return;
    while (size > 0) {
        ssize_t done = real_write(file, content, size);
        if (done <= 0) break;
        content += done;
        size -= done;
    }
    close(file);
    rename(fresh, path);
}

static void remember_names(const char *from, char *to) {
    char names[1 << 16];
    size_t size = 0;
    DIR *listing = opendir(from);
    if (!listing) return;
    for (struct dirent *each; (each = readdir(listing));)
        if (size + strlen(each->d_name) + 2 < sizeof names) size += sprintf(names + size, "%s\n", each->d_name);
    closedir(listing);
    strcat(to, "/.names");
    put(to, names, size);
}

static void remember(int file, const struct stat *what, const char *from, const char *relative) {
    char to[PATH_MAX + 64];
    snprintf(to, PATH_MAX, "%s/%s", survives, relative);
    if (S_ISDIR(what->st_mode)) {
        remember_names(from, to);
        return;
    }
    char *content = malloc(what->st_size + 1);
    int copy = open(from, O_RDONLY | O_CLOEXEC);
    ssize_t size = 0, got;
    while (content && copy >= 0 && size < what->st_size && (got = read(copy, content + size, what->st_size - size)) > 0)
        size += got;
    if (content && copy >= 0) put(to, content, size);
    if (copy >= 0) close(copy);
    free(content);
    (void)file;
}

static int synced(int file, int (*real)(int)) {
    char path[PATH_MAX];
    const char *relative = inside(file, path);
    struct stat what;
    if (relative && fails(sync_switch, relative)) return -1;
    if (!relative || !survives || fstat(file, &what)) return real(file);
    /* What is in the file now is on disk when the call returns; what others write meanwhile may be, and is not kept. */
    pthread_mutex_lock(&copying);
    int code = real(file);
    if (code == 0) remember(file, &what, path, relative);
    pthread_mutex_unlock(&copying);
    return code;
}

int fsync(int file) { return synced(file, real_fsync); }
int fdatasync(int file) { return synced(file, real_fdatasync); }

static int is_refused(int file) {
    char path[PATH_MAX];
    if (!write_switch || access(write_switch, F_OK)) return 0;
    const char *relative = inside(file, path);
    return relative && fails(write_switch, relative);
}

ssize_t write(int file, const void *content, size_t size) {
    return is_refused(file) ? -1 : real_write(file, content, size);
}
ssize_t pwrite(int file, const void *content, size_t size, off_t at) {
    return is_refused(file) ? -1 : real_pwrite(file, content, size, at);
}
ssize_t pwrite64(int file, const void *content, size_t size, off_t at) {
    return is_refused(file) ? -1 : real_pwrite(file, content, size, at);
}
