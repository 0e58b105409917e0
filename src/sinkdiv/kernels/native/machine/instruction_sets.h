// The instruction sets that passes are compiled for, and the choice among them when the module is
// loaded.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

// Declares the same in the namespace of each instruction set; and calls it in that of the chosen
// set.
#if defined(SINKDIV_X86)
#define SINKDIV_IN_EACH_SET(...) \
    namespace portable {         \
    __VA_ARGS__                  \
    }                            \
    namespace avx2 {             \
    __VA_ARGS__                  \
    }                            \
    namespace avx512 {           \
    __VA_ARGS__                  \
    }
#define SINKDIV_IN_CHOSEN_SET(call)                        \
    (chosen_set() == InstructionSet::avx512 ? avx512::call \
     : chosen_set() == InstructionSet::avx2 ? avx2::call   \
                                            : portable::call)
#else
#define SINKDIV_IN_EACH_SET(...) \
    namespace portable {         \
    __VA_ARGS__                  \
    }
#define SINKDIV_IN_CHOSEN_SET(call) (portable::call)
#endif

namespace sinkdiv {

enum class InstructionSet { portable, avx2, avx512 };

inline std::string name_of(InstructionSet set) {
    return set == InstructionSet::avx512 ? "avx512"
           : set == InstructionSet::avx2 ? "avx2"
                                         : "portable";
}

// Those that this processor supports, the best first.
inline std::vector<InstructionSet> supported_sets() {
    std::vector<InstructionSet> sets;
#if defined(SINKDIV_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        sets.push_back(InstructionSet::avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        sets.push_back(InstructionSet::avx2);
#endif
    sets.push_back(InstructionSet::portable);
    return sets;
}

inline InstructionSet& chosen_set() {
    static InstructionSet set = supported_sets().front();
    return set;
}

inline std::vector<std::string> supported_names() {
    std::vector<std::string> names;
    for (const InstructionSet set : supported_sets()) names.push_back(name_of(set));
    return names;
}

// False if this processor does not support the set of that name.
inline bool choose_set(const std::string& name) {
    for (const InstructionSet set : supported_sets())
        if (name_of(set) == name) return chosen_set() = set, true;
    return false;
}

}  // namespace sinkdiv
