/* Little-endian loads and stores at any address.
 *
 * Law of this room: memcpy is the only way to memory, so no alignment is assumed and compilers make it one instruction.
 * Nothing here checks lengths; whoever calls has.
 */
#ifndef DURABLE_LOG_BYTES_H
#define DURABLE_LOG_BYTES_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define DL_LITTLE_16(value) __builtin_bswap16(value)
#define DL_LITTLE_32(value) __builtin_bswap32(value)
#define DL_LITTLE_64(value) __builtin_bswap64(value)
#else
#define DL_LITTLE_16(value) (value)
#define DL_LITTLE_32(value) (value)
#define DL_LITTLE_64(value) (value)
#endif

static inline uint16_t dl_load16(const uint8_t *from) {
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return DL_LITTLE_16(value);
}

static inline uint32_t dl_load32(const uint8_t *from) {
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return DL_LITTLE_32(value);
}

static inline uint64_t dl_load64(const uint8_t *from) {
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return DL_LITTLE_64(value);
}

static inline void dl_store16(uint8_t *to, uint16_t value) {
    value = DL_LITTLE_16(value);
    memcpy(to, &value, sizeof value);
}

static inline void dl_store32(uint8_t *to, uint32_t value) {
    value = DL_LITTLE_32(value);
    memcpy(to, &value, sizeof value);
}

static inline void dl_store64(uint8_t *to, uint64_t value) {
    value = DL_LITTLE_64(value);
    memcpy(to, &value, sizeof value);
}

#endif
