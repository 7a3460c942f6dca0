// A small builder of ACPI Machine Language: terms are byte strings that nest.
//
//   aml::scope("\\_SB", {aml::device("COM1", {aml::name("_HID", aml::eisa_id("PNP0501"))})})
//
// Source: ACPI Specification 6.5, chapter 20 (grammar and encodings) and 6.4 (resource
// descriptors). Only what static tables need. Names and numbers come from our own code: a malformed
// one is a bug of ours and asserted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace vmm::x86::aml {

// One encoded term, or one resource descriptor.
using Term = std::vector<std::byte>;
using Terms = std::vector<Term>;

// All terms one after the other.
Term join(const Terms& terms);

// Data. An integer takes as few bytes as it can; text is 7-bit without zeros.
Term integer(std::uint64_t value);
Term string(std::string_view text);
Term buffer(std::span<const std::byte> bytes);
Term package(const Terms& elements);  // at most 255 elements
// A compressed EISA ID: three capital letters and four hexadecimal digits ("PNP0501").
Term eisa_id(std::string_view id);
// A buffer of the UUID with this text, "33DB4D5B-1FF7-401C-9657-7441C03DD766", as ToUUID lays it
// out: its first three groups little-endian.
Term uuid(std::string_view text);

// A reference: segments of one to four characters with dots between, "\\" for the root and "^" for
// the parent before them ("\\_SB.COM1", "_HID").
Term path(std::string_view text);

// Named things.
Term name(std::string_view where, const Term& value);
Term scope(std::string_view where, const Terms& terms);
Term device(std::string_view where, const Terms& terms);
// A method of `arguments` (0 to 7) whose body is `terms`. One that names things while it runs has
// to be serialized: its calls wait for each other.
enum class Serialize : bool { kNo, kYes };
Term method(std::string_view where, unsigned arguments, const Terms& terms,
            Serialize serialize = Serialize::kNo);
Term return_value(const Term& value);
Term argument(unsigned number);                            // of a method: 0 to 6
Term local(unsigned number);                               // a method's variable: 0 to 7
Term store(const Term& value, const Term& target);         // Store(value, target)
Term if_true(const Term& condition, const Terms& terms);   // If (condition) {terms}
Term notify(std::string_view device, std::uint64_t what);  // Notify(device, what)
// Calls `name` a range of ports, and `fields` its 32-bit registers one after the other.
Term port_registers(std::string_view name, std::uint16_t base,
                    std::initializer_list<std::string_view> fields);
// Calls `name` the 32-bit field of a buffer that begins at this byte.
Term dword_field(const Term& buffer, std::uint64_t offset, std::string_view name);

// Values.
Term equal(const Term& left, const Term& right);  // integers, or buffers
Term no(const Term& value);                       // logical
Term bit_and(const Term& left, const Term& right);
Term bit_or(const Term& left, const Term& right);

// Descriptors for resource_template.
enum class Trigger : std::uint8_t { kLevel, kEdge };
enum class Polarity : std::uint8_t { kActiveHigh, kActiveLow };
Term io_ports(std::uint16_t base, std::uint8_t count);  // IO, 16-bit decode, fixed
Term isa_irq(std::uint8_t irq);                         // IRQNoFlags: edge, active high, not shared
Term memory32(std::uint32_t base, std::uint32_t size);  // Memory32Fixed, read and write
enum class Sharing : std::uint8_t { kExclusive, kShared };
Term interrupt(std::uint32_t gsi, Trigger trigger, Polarity polarity,
               Sharing sharing = Sharing::kExclusive);  // Interrupt
// Ranges, both ends included, that a bridge passes on to what is behind it.
Term bus_numbers(std::uint16_t first, std::uint16_t last);    // WordBusNumber
Term io_window(std::uint16_t first, std::uint16_t last);      // WordIO
Term memory_window(std::uint32_t first, std::uint32_t last);  // DWordMemory, not cacheable
// A buffer of descriptors with the end tag: what _CRS returns.
Term resource_template(const Terms& descriptors);

}  // namespace vmm::x86::aml
