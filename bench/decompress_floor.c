// The floor of loading a bzImage: read the file, find its payload, unpack it with the bare library
// into fresh memory. Then one byte on stdout, so that spawn_time can take the time from the start.
//
//   decompress_floor BZIMAGE             says on stderr what it did and how long it took
//   decompress_floor --quiet BZIMAGE     only the byte
//   decompress_floor --output FILE BZIMAGE   also writes the unpacked payload
//
// A yardstick for trusted files, with the checks that keep it from lying; vmm's own loader is the
// one that expects hostile input.
#include <bzlib.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <lzma.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static void die(const char* what) {
  fprintf(stderr, "decompress_floor: %s\n", what);
  exit(1);
}

static uint32_t le32(const unsigned char* at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

// Each unpacker returns how many bytes it made, or 0 when the data is not sound.

static size_t unpack_gzip(const unsigned char* in, size_t in_size, unsigned char* out,
                          size_t room) {
  z_stream stream = {.next_in = (unsigned char*)in,
                     .avail_in = (uInt)in_size,
                     .next_out = out,
                     .avail_out = (uInt)room};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return 0;
  const int result = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  return result == Z_STREAM_END ? room - stream.avail_out : 0;
}

static size_t unpack_bzip2(const unsigned char* in, size_t in_size, unsigned char* out,
                           size_t room) {
  unsigned int made = (unsigned int)room;
  return BZ2_bzBuffToBuffDecompress((char*)out, &made, (char*)in, (unsigned int)in_size, 0, 0) ==
                 BZ_OK
             ? made
             : 0;
}

static size_t unpack_xz_or_lzma(const unsigned char* in, size_t in_size, unsigned char* out,
                                size_t room) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_auto_decoder(&stream, UINT64_MAX, 0) != LZMA_OK) return 0;
  stream.next_in = in;
  stream.avail_in = in_size;
  stream.next_out = out;
  stream.avail_out = room;
  // An LZMA stream of unknown size may lack an end mark: then it is whole when the output is.
  const lzma_ret result = lzma_code(&stream, LZMA_FINISH);
  const size_t made = room - stream.avail_out;
  lzma_end(&stream);
  return result == LZMA_STREAM_END || stream.avail_out == 0 ? made : 0;
}

// The legacy frame: magic, then blocks of at most 8 MiB, each after its packed size. Concatenated
// frames repeat the magic.
static size_t unpack_lz4(const unsigned char* in, size_t in_size, unsigned char* out, size_t room) {
  size_t at = 4, made = 0;
  while (in_size - at >= 4) {
    const uint32_t packed = le32(in + at);
    at += 4;
    if (packed == 0x184c2102) continue;
    if (packed > in_size - at) return 0;
    const size_t left = room - made;
    const int got = LZ4_decompress_safe((const char*)in + at, (char*)out + made, (int)packed,
                                        (int)(left > INT32_MAX ? INT32_MAX : left));
    if (got < 0) return 0;
    made += (size_t)got;
    at += packed;
  }
  return made;
}

static size_t unpack_zstd(const unsigned char* in, size_t in_size, unsigned char* out,
                          size_t room) {
  ZSTD_inBuffer from = {in, in_size, 0};
  ZSTD_outBuffer to = {out, room, 0};
  ZSTD_DStream* stream = ZSTD_createDStream();
  if (!stream) return 0;
  // The window that a kernel's payload needs (128 MiB) is above the library's default limit.
  ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, 30);
  const size_t result = ZSTD_decompressStream(stream, &to, &from);
  ZSTD_freeDStream(stream);
  return result == 0 ? to.pos : 0;
}

int main(int argc, char** argv) {
  int quiet = 0;
  const char *output = NULL, *image = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--quiet")) {
      quiet = 1;
    } else if (!strcmp(argv[i], "--output") && i + 1 < argc) {
      output = argv[++i];
    } else {
      image = argv[i];
    }
  }
  if (!image) {
    fprintf(stderr, "usage: decompress_floor [--quiet] [--output FILE] BZIMAGE\n");
    return 2;
  }

  const double start = now_ms();
  const int file = open(image, O_RDONLY | O_CLOEXEC);
  struct stat info;
  if (file < 0 || fstat(file, &info)) die(strerror(errno));
  const size_t size = (size_t)info.st_size;
  const unsigned char* bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
  if (size < 1024 || size > INT32_MAX || bytes == MAP_FAILED) die("cannot read the image");

  // Linux x86 boot protocol, "The Real-Mode Kernel Header": setup_sects, header, version,
  // payload_offset (from the start of the protected-mode code), payload_length.
  if (memcmp(bytes + 0x202, "HdrS", 4) != 0) die("no setup header");
  if ((bytes[0x206] | bytes[0x207] << 8) < 0x208) die("the protocol names no payload");
  const size_t setup_sectors = bytes[0x1f1] ? bytes[0x1f1] : 4;
  const size_t offset = (setup_sectors + 1) * 512 + le32(bytes + 0x248);
  const size_t length = le32(bytes + 0x24c);
  if (offset > size || length < 8 || length > size - offset) die("the payload is not in the file");
  const unsigned char* payload = bytes + offset;

  // The build appends the unpacked size (for gzip it is the trailer's own).
  const size_t room = le32(payload + length - 4);
  unsigned char* out =
      mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == 0 || out == MAP_FAILED) die("cannot map memory for the payload");

  const char* format;
  size_t made;
  if (payload[0] == 0x1f && payload[1] == 0x8b) {
    format = "gzip";
    made = unpack_gzip(payload, length, out, room);
  } else if (!memcmp(payload, "BZh", 3)) {
    format = "bzip2";
    made = unpack_bzip2(payload, length - 4, out, room);
  } else if (!memcmp(payload,
                     "\xfd"
                     "7zXZ",
                     5)) {
    format = "xz";
    made = unpack_xz_or_lzma(payload, length - 4, out, room);
  } else if (payload[0] == 0x5d && payload[1] == 0) {
    format = "lzma";
    made = unpack_xz_or_lzma(payload, length - 4, out, room);
  } else if (le32(payload) == 0x184c2102) {
    format = "lz4";
    made = unpack_lz4(payload, length - 4, out, room);
  } else if (le32(payload) == 0xfd2fb528) {
    format = "zstd";
    made = unpack_zstd(payload, length - 4, out, room);
  } else {
    die("a payload format that is not measured here");
    return 1;
  }
  if (made != room) die("the payload did not unpack to its size");
  if (write(1, "!", 1) != 1) die("stdout");
  const double end = now_ms();

  if (!quiet)
    fprintf(stderr, "%s: %zu -> %zu bytes in %.2f ms\n", format, length, made, end - start);
  if (output) {
    const int to = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    for (size_t done = 0; done < made;) {
      const ssize_t put = write(to, out + done, made - done);
      if (put <= 0) die("cannot write the output");
      done += (size_t)put;
    }
  }
  return 0;
}
