/** Owns the port to whoever decides, beside tokens, what clients may. Types only. */
import type { Decision, Grant } from '../access/grant.ts'

export interface Authority {
  /**
   * What the owner of these claims may on channels. It does not reject: what is not known is a decision, too.
   *
   * @param isAnew asks also where an answer is remembered.
   * @returns a decision for each channel, in their order: at once where all of them are remembered.
   */
  decide(
    who: Pick<Grant, 'claims' | 'role'>,
    channels: readonly string[],
    isAnew?: boolean,
  ): readonly Decision[] | Promise<readonly Decision[]>
}
