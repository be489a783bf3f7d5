/* A Certificate message, of which the first byte says in which version of TLS. Input lies on the heap with no byte to
 * spare, and is not written to. */
#include "certificates.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    enum certificates_problem problem = certificates_judge(data + 1, size - 1, data[0] & 1);
    CHECK(problem < CERTIFICATES_PROBLEM_COUNT && (CERTIFICATES_SENTENCES[problem][0] == 0) == (problem == 0));
    return 0;
}
