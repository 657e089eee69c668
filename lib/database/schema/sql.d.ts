/** Owns what TypeScript knows of a file of SQL that is imported as text. */
declare module '*.sql' {
  const text: string
  export default text
}
