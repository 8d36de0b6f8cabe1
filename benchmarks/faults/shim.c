// Makes the nth write, rename or opening of a file below a folder fail. Loaded with LD_PRELOAD; it does nothing until
// fault_arm() is called or, in a process started by an armed one, if FAULT_FOLDER is set.
//
// FAULT_FOLDER  only paths that start with this text count
// FAULT_KIND    full: writes, new files and folders fail with ENOSPC, the nth and all that follow
//               io: the nth write or fsync fails with EIO
//               readonly: changes of files and folders fail with EROFS, the nth and all that follow
//               rename: the nth rename or link fails with EACCES
// FAULT_NTH     0 only counts
// FAULT_COUNTER a file of a long and a line: the number of calls, over all processes, and the call that failed first
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct record { long calls; char first[1024]; };

enum { WRITE = 1, CREATE = 2, SYNC = 4, RENAME = 8, CHANGE = 16 };

static struct { const char *name; int calls; int error; int stays; } KINDS[] = {
    {"full", WRITE | CREATE, ENOSPC, 1},
    {"io", WRITE | SYNC, EIO, 0},
    {"readonly", CREATE | RENAME | CHANGE, EROFS, 1},
    {"rename", RENAME, EACCES, 0},
};

static const char *folder;
static long nth;
static int kind = -1;
static struct record *record;

__attribute__((constructor)) void fault_arm(void) {
  const char *path = getenv("FAULT_COUNTER"), *name = getenv("FAULT_KIND"), *number = getenv("FAULT_NTH");
  folder = getenv("FAULT_FOLDER");
  if (!folder || !path || !name || !number) return;
  nth = atol(number);
  int fd = open(path, O_RDWR);
  if (fd < 0) return;
  record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (record == MAP_FAILED) return;
  for (int i = 0; i < (int)(sizeof KINDS / sizeof *KINDS); i++)
    if (!strcmp(name, KINDS[i].name)) kind = i;
}

static int is_below(int at, const char *path) {
  char whole[2 * PATH_MAX], link[64];
  if (path[0] != '/') {
    ssize_t length;
    if (at == AT_FDCWD) {
      if (!getcwd(whole, PATH_MAX)) return 0;
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", at);
      if ((length = readlink(link, whole, PATH_MAX - 1)) < 0) return 0;
      whole[length] = 0;
    }
    strncat(whole, "/", sizeof whole - strlen(whole) - 1);
    strncat(whole, path, sizeof whole - strlen(whole) - 1);
    path = whole;
  }
  return !strncmp(path, folder, strlen(folder));
}

// Whether this call fails; sets errno.
static int fails(int call, const char *name, int at, const char *path) {
  if (kind < 0 || !(KINDS[kind].calls & call) || !path || !is_below(at, path)) return 0;
  long number = __sync_add_and_fetch(&record->calls, 1);
  if (!nth || number < nth || (number > nth && !KINDS[kind].stays)) return 0;
  if (number == nth) snprintf(record->first, sizeof record->first, "%s %s", name, path);
  errno = KINDS[kind].error;
  return 1;
}

static int fails_fd(int call, const char *name, int fd) {
  if (kind < 0 || !(KINDS[kind].calls & call)) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return fails(call, name, AT_FDCWD, path);
}

// Opening an existing file for writing needs no space, creating one does.
static int fails_open(int at, const char *path, int flags) {
  if (kind < 0 || !path) return 0;
  if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT)) return 0;
  struct stat there;
  int creates = (flags & O_CREAT) && fstatat(at, path, &there, 0) != 0;
  return fails(creates ? CREATE : CHANGE, "open", at, path);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define MODE va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more)

int open(const char *path, int flags, ...) { MODE; REAL(open); return fails_open(AT_FDCWD, path, flags) ? -1 : real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE; REAL(open64); return fails_open(AT_FDCWD, path, flags) ? -1 : real(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE; REAL(openat); return fails_open(at, path, flags) ? -1 : real(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE; REAL(openat64); return fails_open(at, path, flags) ? -1 : real(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { REAL(creat); return fails_open(AT_FDCWD, path, O_WRONLY | O_CREAT) ? -1 : real(path, mode); }
static int flags_of(const char *mode) { return mode[0] == 'r' ? (strchr(mode, '+') ? O_RDWR : O_RDONLY) : O_WRONLY | O_CREAT; }
FILE *fopen(const char *path, const char *mode) { REAL(fopen); return fails_open(AT_FDCWD, path, flags_of(mode)) ? NULL : real(path, mode); }
FILE *fopen64(const char *path, const char *mode) { REAL(fopen64); return fails_open(AT_FDCWD, path, flags_of(mode)) ? NULL : real(path, mode); }

ssize_t write(int fd, const void *data, size_t size) { REAL(write); return fails_fd(WRITE, "write", fd) ? -1 : real(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); return fails_fd(WRITE, "write", fd) ? -1 : real(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); return fails_fd(WRITE, "write", fd) ? -1 : real(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { REAL(writev); return fails_fd(WRITE, "write", fd) ? -1 : real(fd, parts, count); }
ssize_t sendfile(int to, int from, off_t *at, size_t size) { REAL(sendfile); return fails_fd(WRITE, "write", to) ? -1 : real(to, from, at, size); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { REAL(sendfile64); return fails_fd(WRITE, "write", to) ? -1 : real(to, from, at, size); }
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) { REAL(copy_file_range); return fails_fd(WRITE, "write", to) ? -1 : real(from, at, to, there, size, flags); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); return fails_fd(WRITE, "truncate", fd) ? -1 : real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return fails_fd(WRITE, "truncate", fd) ? -1 : real(fd, size); }
int fsync(int fd) { REAL(fsync); return fails_fd(SYNC, "fsync", fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return fails_fd(SYNC, "fsync", fd) ? -1 : real(fd); }

int rename(const char *from, const char *to) { REAL(rename); return fails(RENAME, "rename", AT_FDCWD, to) ? -1 : real(from, to); }
int renameat(int at, const char *from, int there, const char *to) { REAL(renameat); return fails(RENAME, "rename", there, to) ? -1 : real(at, from, there, to); }
int renameat2(int at, const char *from, int there, const char *to, unsigned flags) { REAL(renameat2); return fails(RENAME, "rename", there, to) ? -1 : real(at, from, there, to, flags); }
int link(const char *from, const char *to) { REAL(link); return fails(RENAME, "link", AT_FDCWD, to) ? -1 : real(from, to); }
int linkat(int at, const char *from, int there, const char *to, int flags) { REAL(linkat); return fails(RENAME, "link", there, to) ? -1 : real(at, from, there, to, flags); }
int mkdir(const char *path, mode_t mode) { struct stat there; REAL(mkdir); return stat(path, &there) != 0 && fails(CREATE, "mkdir", AT_FDCWD, path) ? -1 : real(path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { struct stat there; REAL(mkdirat); return fstatat(at, path, &there, 0) != 0 && fails(CREATE, "mkdir", at, path) ? -1 : real(at, path, mode); }
int unlink(const char *path) { struct stat there; REAL(unlink); return lstat(path, &there) == 0 && fails(CHANGE, "unlink", AT_FDCWD, path) ? -1 : real(path); }
int unlinkat(int at, const char *path, int flags) { struct stat there; REAL(unlinkat); return fstatat(at, path, &there, AT_SYMLINK_NOFOLLOW) == 0 && fails(CHANGE, "unlink", at, path) ? -1 : real(at, path, flags); }
int rmdir(const char *path) { struct stat there; REAL(rmdir); return lstat(path, &there) == 0 && fails(CHANGE, "rmdir", AT_FDCWD, path) ? -1 : real(path); }
