using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Threading.Tasks;

namespace Shotline.Example
{
    /// <summary>
    /// dotnet run -- tune FOLDER PROJECT [ACCURACY]    uploads a folder per class and tunes; promotes
    ///                                                 from that macro accuracy on, such as 0.9
    /// dotnet run -- predict PROJECT IMAGE…            asks for decisions, as a vision PC would
    /// The address and the API key are read from SHOTLINE_URL and SHOTLINE_KEY. The exit code of
    /// predict is 0 where every decision is ok, else 1; 2 where one could not be decided on.
    /// </summary>
    public static class Program
    {
        private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(2);

        public static int Main(string[] arguments)
        {
            return RunAsync(arguments).GetAwaiter().GetResult();
        }

        private static async Task<int> RunAsync(string[] arguments)
        {
            string address = Environment.GetEnvironmentVariable("SHOTLINE_URL") ?? "http://127.0.0.1:8000";
            string key = Environment.GetEnvironmentVariable("SHOTLINE_KEY") ?? "";
            try
            {
                using (var client = new ShotlineClient(address, key))
                {
                    if ((arguments.Length == 3 || arguments.Length == 4) && arguments[0] == "tune")
                    {
                        double promoteFrom = arguments.Length == 4
                            ? double.Parse(arguments[3], CultureInfo.InvariantCulture)
                            : double.PositiveInfinity;
                        await TuneAsync(client, arguments[1], arguments[2], promoteFrom).ConfigureAwait(false);
                        return 0;
                    }
                    if (arguments.Length >= 3 && arguments[0] == "predict")
                    {
                        return await PredictAsync(client, arguments[1], arguments.Skip(2)).ConfigureAwait(false);
                    }
                }
            }
            catch (Exception error) when (IsForeseen(error))
            {
                Console.Error.WriteLine("Failed: " + error.Message);
                return 2;
            }
            Console.Error.WriteLine("tune FOLDER PROJECT [ACCURACY], or predict PROJECT IMAGE…");
            return 2;
        }

        // Whatever it was, the part was not decided on. UriFormatException and FormatException are
        // of the address and the accuracy, KeyNotFoundException and InvalidOperationException of an
        // answer that is not the gateway's.
        private static bool IsForeseen(Exception error)
        {
            return error is ShotlineException
                || error is HttpRequestException
                || error is IOException
                || error is UnauthorizedAccessException
                || error is FormatException
                || error is KeyNotFoundException
                || error is InvalidOperationException;
        }

        private static async Task TuneAsync(ShotlineClient client, string folder, string name, double promoteFrom)
        {
            List<string> classes = Directory.GetDirectories(folder).OrderBy(path => path, StringComparer.Ordinal).ToList();
            string project = await client.FindProjectAsync(name).ConfigureAwait(false)
                ?? await client.MakeProjectAsync(name, classes.Select(Path.GetFileName)).ConfigureAwait(false);
            foreach (string path in classes)
            {
                IEnumerable<string> images = Directory.GetFiles(path).Where(IsPhotograph).OrderBy(file => file, StringComparer.Ordinal);
                foreach (string line in await client.UploadAsync(project, Path.GetFileName(path), images).ConfigureAwait(false))
                {
                    Console.Error.WriteLine(line);
                }
            }
            string tuning = await client.StartTuningAsync(project).ConfigureAwait(false);
            (string model, int version) = await client.WaitForVersionAsync(tuning, Console.WriteLine).ConfigureAwait(false);
            double accuracy = await client.AccuracyAsync(model).ConfigureAwait(false);
            Console.WriteLine(FormattableString.Invariant($"Version {version}: macro accuracy {accuracy:F3}"));
            if (accuracy >= promoteFrom)
            {
                await client.PromoteAsync(project, version).ConfigureAwait(false);
                Console.WriteLine($"Version {version} is in production.");
            }
        }

        // Passes over what file managers leave behind; all else is for the gateway to judge.
        private static bool IsPhotograph(string path)
        {
            string name = Path.GetFileName(path).ToLowerInvariant();
            return !name.StartsWith('.') && name != "thumbs.db" && name != "desktop.ini";
        }

        private static async Task<int> PredictAsync(ShotlineClient client, string name, IEnumerable<string> paths)
        {
            string project = await client.FindProjectAsync(name).ConfigureAwait(false);
            if (project == null)
            {
                throw new ShotlineException($"No project is called '{name}'.");
            }
            bool allOk = true;
            foreach (string path in paths)
            {
                string file = Path.GetFileName(path);
                Decision decision = await client.DecideAsync(project, File.ReadAllBytes(path), file, Deadline).ConfigureAwait(false);
                allOk &= decision.Code == "ok";
                string probability = decision.Probability.ToString("F4", CultureInfo.InvariantCulture);
                Console.WriteLine($"{file}\t{decision.Code}\t{decision.Label}\t{probability}\tversion {decision.Version}\t{decision.Reason}");
            }
            return allOk ? 0 : 1;
        }
    }
}
